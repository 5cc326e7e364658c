#include "keeper.h"

#include <errno.h>
#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts.h"
#include "record.h"

#ifndef PR_SCHED_CORE
#define PR_SCHED_CORE 62
#endif
#ifndef SCHED_RESET_ON_FORK
#define SCHED_RESET_ON_FORK 0x40000000
#endif
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
enum { SCHED_CORE_CREATE = 1, SCHED_CORE_THREAD_GROUP = 1 };

struct ending {
    int status;
    int64_t ended_ns, cpu_ns;
};

int trouble(struct keeper *k, const char *reason, const char *format, ...)
{
    va_list words;
    va_start(words, format);
    (void)vsnprintf(k->message, sizeof k->message, format, words);
    va_end(words);
    (void)snprintf(k->reason, sizeof k->reason, "%s", reason);
    if (strcmp(reason, "START_FAILED") == 0)
        (void)dprintf(2, "%s\n", k->message);
    return -1;
}

bool write_exit(struct keeper *k, int code, int number, int64_t ended_ns, int64_t cpu_ns,
                bool clean)
{
    struct page page;
    if (!page_open(&page))
        return false;
    fprintf(page.out, "{\"exit_code\": %d, \"signal\": %d, \"started\": %s, ", code, number,
            k->started ? "true" : "false");
    fprintf(page.out, "\"boot_id\": \"%s\", \"ended_boottime_ns\": %lld, ", boot_id(),
            (long long)ended_ns);
    fprintf(page.out, "\"ended_wall_ns\": %lld, \"oom\": %s, \"oom_kills\": %lld, ",
            (long long)wall_ns(), k->oom_kills > 0 ? "true" : "false", (long long)k->oom_kills);
    fputs("\"reason\": ", page.out);
    json_quote(page.out, k->reason);
    fputs(", \"message\": ", page.out);
    json_quote(page.out, k->message);
    fprintf(page.out, ", \"cpu_ns\": %lld, \"max_memory_bytes\": %lld, ", (long long)cpu_ns,
            (long long)k->max_memory_bytes);
    fprintf(page.out, "\"clean\": %s, \"log_truncated\": %s}", clean ? "true" : "false",
            k->log.truncated ? "true" : "false");
    return page_save(&page, k->folder, "exit.json");
}

/* Collect the guard if it died, and put another in its place. */
static void reap(struct keeper *k)
{
    if (waitpid(k->guard_pid, NULL, WNOHANG) == k->guard_pid)
        (void)guard(k); /* where none can be forked now, the next tick tries again */
}

/* What the clocks ask for now; nanoseconds until the next look, -1 after trouble. */
static int64_t turn(struct keeper *k)
{
    int64_t wait = k->phase == RUNNING ? enforce(k) : mind(k);
    int64_t most = k->killed ? 50 * MS_NS : TICK_NS;
    reap(k);
    return wait < most ? wait : most;
}

static void take_status(struct keeper *k, struct ending *ending)
{
    struct rusage used = {0};
    ending->ended_ns = boottime_ns();
    while (wait4(k->child, &ending->status, 0, &used) < 0 && errno == EINTR)
        ;
    ending->cpu_ns = (used.ru_utime.tv_sec + used.ru_stime.tv_sec) * SECOND_NS +
                     (used.ru_utime.tv_usec + used.ru_stime.tv_usec) * INT64_C(1000);
}

static void wait_for(struct pollfd *ready, nfds_t count, int64_t span_ns)
{
    struct timespec span = {span_ns / SECOND_NS, span_ns % SECOND_NS};
    if (ppoll(ready, count, &span, NULL) < 0)
        for (nfds_t i = 0; i < count; i++)
            ready[i].revents = 0;
}

/* Wait for the task and do what is due meanwhile; -1 if it could not be set going. */
static int keep(struct keeper *k, struct ending *ending)
{
    struct pollfd ready[4] = {{k->control, POLLIN, 0}, {pidfd_of(k->child), POLLIN, 0},
                              {k->writes, POLLIN, 0}, {k->log.read_fd, POLLIN, 0}};
    bool gather = false, open = true; /* gather: what a chatty task says for 5 ms */
    int64_t due = 0;
    if (ready[1].fd < 0)
        return trouble(k, "START_FAILED", "watch the sandbox: %s", strerror(errno));
    for (;;) {
        if (monotonic_ns() >= due) { /* a chatty task wakes us more often than the clock needs */
            int64_t wait = turn(k);
            if (wait < 0)
                return -1;
            due = monotonic_ns() + wait;
        }
        if (k->phase == RUNNING)
            quota_look(k);
        int64_t wait = minus(due, monotonic_ns()), quota = quota_wait_ns(k);
        wait = quota < wait ? quota : wait;
        if (gather && wait > 5 * MS_NS)
            wait = 5 * MS_NS;
        ready[2].fd = k->writes; /* none: it is passed over */
        ready[2].revents = ready[3].revents = 0;
        wait_for(ready, gather || !open ? 3 : 4, wait > 0 ? wait : 0);
        gather = ready[3].revents != 0;
        if (ready[2].revents != 0)
            quota_written(k);
        if (ready[0].revents != 0) {
            char bytes[256];
            due = 0;
            while (read(k->control, bytes, sizeof bytes) == sizeof bytes)
                ;
        }
        if (gather)
            open = output_drain(&k->log, 64);
        if (ready[1].revents != 0) {
            take_status(k, ending);
            close(ready[1].fd);
            return 0;
        }
    }
}

static void finish(struct keeper *k, int code, int number, int64_t ended_ns, int64_t cpu_ns)
{
    k->oom_kills = cgroup_oom_kills(&k->cgroup);
    k->max_memory_bytes = cgroup_max_memory_bytes(&k->cgroup);
    int64_t counted = cgroup_cpu_ns(&k->cgroup);
    if (k->oom_kills > 0 && k->reason[0] == '\0')
        (void)trouble(k, "OOM_KILLED",
                      "%lld of its processes exceeded the memory limit and were killed.",
                      (long long)k->oom_kills);
    if (k->reason[0] == '\0')
        (void)snprintf(k->reason, sizeof k->reason, "EXITED");
    bool clean = k->guard_pid > 0 ? clear_away(k) : true;
    (void)output_drain(&k->log, 1 << 16);
    if (write_exit(k, code, number, ended_ns, counted > 0 ? counted : cpu_ns, clean))
        dismiss_guard(k); /* else the guard tries once more */
}

/* The runtime's part: made, and, unless it is held, set going. */
static int begin(struct keeper *k)
{
    if (isolate(k) != 0)
        return -1;
    if (json_is(&k->spec, json_get(&k->spec, 0, "core_tag"), JSON_TRUE))
        /* A tag of its own, which its children take over. A kernel without it says no. */
        (void)prctl(PR_SCHED_CORE, SCHED_CORE_CREATE, 0, SCHED_CORE_THREAD_GROUP, 0);
    if (guard(k) != 0 || create(k) != 0)
        return -1;
    json_free(&k->spec);
#ifdef __GLIBC__
    (void)malloc_trim(0); /* the specification was the most this process ever holds */
#endif
    tell_guard(k);
    if (k->plan.first == WARMING)
        return release(k);
    return k->plan.first == HELD ? 0 : set_going(k);
}

static void run(struct keeper *k)
{
    struct ending ending = {0};
    if (begin(k) != 0 || keep(k, &ending) != 0) {
        finish(k, 127, 0, boottime_ns(), 0);
        return;
    }
    finish(k, wait_code(ending.status), WIFSIGNALED(ending.status) ? WTERMSIG(ending.status) : 0,
           ending.ended_ns, ending.cpu_ns);
}

static bool same(const char *text, const char *other)
{
    return text != NULL && strcmp(text, other) == 0;
}

static int read_hold(struct keeper *k)
{
    char *hold = json_member(&k->spec, 0, "hold");
    k->plan.first = same(hold, "created") ? HELD : same(hold, "frozen") ? WARMING : RUNNING;
    k->phase = k->plan.first;
    bool known = hold == NULL || hold[0] == '\0' || k->plan.first != RUNNING;
    free(hold);
    if (!known || (k->plan.first != RUNNING && !k->plan.crun))
        return trouble(k, "START_FAILED", "spec.json: this sandbox cannot be held");
    return 0;
}

static int read_plan(struct keeper *k)
{
    struct plan *plan = &k->plan;
    if (!read_record(k->folder, "spec.json", &k->spec))
        return trouble(k, "START_FAILED", "spec.json cannot be read");
    const struct json *spec = &k->spec;
    char *runtime = json_member(spec, 0, "runtime");
    char *cgroup = json_member(spec, 0, "cgroup");
    plan->crun = same(runtime, "crun");
    free(runtime);
    k->cgroup = cgroup_at(CGROUPS, cgroup != NULL ? cgroup : k->cgroup.name);
    plan->lease_id = json_member(spec, 0, "lease_id");
    plan->stage = json_member(spec, 0, "stage");
    plan->link = json_member(spec, 0, "link");
    plan->program = json_text(spec, json_at(spec, json_get(spec, 0, "program"), 0));
    plan->private = json_is(spec, json_get(spec, 0, "private"), JSON_TRUE);
    plan->hooks = json_get(spec, json_get(spec, json_get(spec, 0, "oci"), "hooks"), "poststart");
    plan->log_limit_bytes = 1 << 20;
    (void)json_integer(spec, json_get(spec, 0, "log_limit_bytes"), &plan->log_limit_bytes);
    if (!json_integer(spec, json_get(spec, 0, "disk_bytes"), &plan->disk_bytes) ||
        !json_integer(spec, json_get(spec, 0, "disk_inodes"), &plan->disk_inodes) ||
        plan->lease_id == NULL || plan->stage == NULL || plan->program == NULL || cgroup == NULL)
        return trouble(k, "START_FAILED", "spec.json lacks what every sandbox has");
    return read_hold(k);
}

/* Write shim.json; false if this folder already had a keeper, ever. */
static bool claim(int folder)
{
    struct page page;
    char draft[64];
    (void)snprintf(draft, sizeof draft, "shim.json.%d", (int)getpid());
    if (!page_open(&page))
        return false;
    fprintf(page.out, "{\"boot_id\": \"%s\", \"pid\": %d, \"start_ticks\": %lld}", boot_id(),
            (int)getpid(), (long long)start_ticks(getpid()));
    bool mine = page_spill(&page, folder, draft) &&
                linkat(folder, draft, folder, "shim.json", 0) == 0;
    (void)unlinkat(folder, draft, 0);
    return mine && fsync(folder) == 0;
}

/* Streams of its own: words into shim.log, and for input a pipe that has ended. Not /dev/null:
 * crun gives its standard streams to the task's user, the host's node too. */
static bool take_streams(int folder)
{
    int ends[2];
    int words = openat(folder, "shim.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (words < 0 || pipe2(ends, O_CLOEXEC) != 0)
        return false;
    bool good = dup2(ends[0], 0) == 0 && dup2(words, 1) == 1 && dup2(words, 2) == 2;
    close(ends[0]);
    close(ends[1]);
    close(words);
    return good;
}

/* Ahead of the leases, whose parent weighs much; our children begin in the ordinary place. */
static void come_first(void)
{
    struct sched_param none = {0};
    if (sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &none) == 0)
        (void)setpriority(PRIO_PROCESS, 0, -15); /* refused to an ordinary user */
}

static int become(struct keeper *k, const char *folder)
{
    if (syscall(SYS_close_range, 3, ~0U, 0) != 0)
        for (int fd = 3; fd < 1024; fd++)
            close(fd);
    int opened = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    k->folder = opened < 0 ? -1 : fcntl(opened, F_DUPFD_CLOEXEC, 3);
    if (k->folder < 0)
        return 2;
    close(opened);
    (void)setsid(); /* refused to a session's leader */
    (void)umask(022);
    const int numbers[] = {SIGTERM, SIGHUP, SIGINT, SIGPIPE};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (signal(numbers[i], SIG_IGN) == SIG_ERR)
            return 2;
    if (chdir("/") != 0 || !take_streams(k->folder) ||
        prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0)
        return 2;
    /* Ahead of the leases, whose parent weighs much; our children begin in the ordinary place. */
    struct sched_param plain = {0};
    if (sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &plain) == 0)
        (void)setpriority(PRIO_PROCESS, 0, -15);
    come_first();
    return claim(k->folder) ? 0 : 3;
}

int main(int argc, char **argv)
{
    static char nothing[1];
    static struct keeper keeper;
    struct keeper *k = &keeper;
    if (argc > 2 && strcmp(argv[1], "--check") == 0)
        return check(argc - 2, argv + 2);
    if (argc != 2)
        return 2;
    *k = (struct keeper){.phase = RUNNING, .writes = -1, .release_fd = -1, .guard_pid = -1,
                         .guard_pipe = -1};
    k->cgroup.name = nothing;
    k->log = (struct output){-1, -1, -1, 0, 0, false};
    k->control = -1;
    int status = become(k, argv[1]);
    if (status != 0)
        return status;
    status = read_plan(k);
    k->control = openat(k->folder, "control", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (status == 0 && (k->control < 0 || !output_open(&k->log, k->folder,
                                                       k->plan.log_limit_bytes)))
        status = trouble(k, "START_FAILED", "open the folder's files: %s", strerror(errno));
    if (status == 0)
        run(k);
    else
        finish(k, 127, 0, boottime_ns(), 0);
    return 0;
}
