#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "facts.h"
#include "keeper.h"
#include "record.h"

enum { LEADERS = 1024, TOLD = 65536 };

static bool of_this_boot(const struct json *record)
{
    char *text = json_member(record, 0, "boot_id");
    bool same = text != NULL && strcmp(text, boot_id()) == 0;
    free(text);
    return same;
}

static bool member_integer(const struct json *record, const char *key, int64_t *value)
{
    return json_integer(record, json_get(record, 0, key), value);
}

/* A stop tightens the deadline; its reason decides, whatever boot it is from. */
static void heed_stop(struct json *stop, struct remaining *answer)
{
    int64_t at = 0;
    if (of_this_boot(stop) && member_integer(stop, "boottime_ns", &at)) {
        int64_t left = minus(at, boottime_ns());
        answer->left_ns = left < answer->left_ns ? left : answer->left_ns;
    }
    char *reason = json_member(stop, 0, "reason");
    answer->grace_ns = minus(answer->left_ns, -1);
    (void)snprintf(answer->why, sizeof answer->why, "%.60s",
                   reason != NULL && reason[0] != '\0' ? reason : "STOPPED");
    free(reason);
}

void remaining(struct keeper *k, struct remaining *answer)
{
    struct json record;
    int64_t boottime = 0, raw = 0, grace_ms = 0;
    *answer = (struct remaining){0, 0, "DEADLINE"};
    if (!read_record(k->folder, "deadline.json", &record))
        return;
    bool valid = of_this_boot(&record) && member_integer(&record, "boottime_ns", &boottime) &&
                 member_integer(&record, "raw_ns", &raw) &&
                 member_integer(&record, "grace_ms", &grace_ms);
    json_free(&record);
    if (!valid)
        return; /* another boot's, or no deadline at all: it is over */
    boottime = minus(boottime, boottime_ns());
    raw = minus(raw, raw_ns());
    answer->left_ns = boottime < raw ? boottime : raw;
    answer->grace_ns = times(grace_ms, MS_NS);
    if (read_record(k->folder, "stop.json", &record)) {
        heed_stop(&record, answer);
        json_free(&record);
    }
}

/* What the task is told with SIGTERM: a file that it sees at /run/gridlease/notice.json. */
static void write_notice(struct keeper *k, const char *why, int64_t left_ns)
{
    struct json stop;
    struct page page;
    char day[32];
    bool stopped = read_record(k->folder, "stop.json", &stop);
    char *code = stopped ? json_member(&stop, 0, "code") : NULL;
    char *message = stopped ? json_member(&stop, 0, "message") : NULL;
    int64_t at = minus(wall_ns(), -left_ns);
    time_t seconds = (time_t)(at / SECOND_NS);
    struct tm parts;
    int folder = openat(k->folder, "notice", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder >= 0 && gmtime_r(&seconds, &parts) != NULL &&
        strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &parts) > 0 && page_open(&page)) {
        fputs("{\"reason\": ", page.out);
        json_quote(page.out, code != NULL && code[0] != '\0' ? code : why);
        fputs(", \"message\": ", page.out);
        json_quote(page.out, message != NULL ? message : "");
        fprintf(page.out, ", \"notice_ms\": %lld, \"deadline\": \"%s.%03dZ\", ",
                (long long)(left_ns / MS_NS), day, (int)(at % SECOND_NS / MS_NS));
        fprintf(page.out, "\"ends_boottime_ns\": %lld}",
                (long long)minus(boottime_ns(), -left_ns));
        (void)page_save(&page, folder, "notice.json"); /* a full disk keeps no signal back */
    }
    if (folder >= 0)
        close(folder);
    if (stopped)
        json_free(&stop);
    free(code);
    free(message);
}

static bool was_told(struct keeper *k, pid_t pid)
{
    for (size_t i = 0; i < k->told_count; i++)
        if (k->told[i] == pid)
            return true;
    if (k->told_count >= TOLD)
        return true;
    pid_t *more = realloc(k->told, (k->told_count + 1) * sizeof *more);
    if (more != NULL) {
        k->told = more;
        k->told[k->told_count++] = pid;
    }
    return false;
}

/* SIGTERM for process 1 and its direct children: once each, also to one that begins later. */
static void tell_leaders(struct keeper *k)
{
    static pid_t leaders[LEADERS];
    if (!lives(k->init, k->init_ticks))
        return;
    leaders[0] = k->init;
    size_t count = 1 + children_of(k->init, leaders + 1, LEADERS - 1);
    for (size_t i = 0; i < count; i++)
        if (!was_told(k, leaders[i]))
            (void)kill(leaders[i], SIGTERM); /* one that is gone needs no word */
}

static void notify(struct keeper *k, const char *why, int64_t left_ns)
{
    if (!k->notified) {
        k->notified = true;
        k->told_count = 0;
        (void)snprintf(k->reason, sizeof k->reason, "%s", why);
        write_notice(k, why, left_ns);
    }
    tell_leaders(k);
}

int64_t enforce(struct keeper *k)
{
    struct remaining now;
    remaining(k, &now);
    if (now.left_ns <= 0) {
        end_task(k, now.why);
        return 0;
    }
    if (now.left_ns <= now.grace_ns) {
        notify(k, now.why, now.left_ns);
    } else if (k->notified) { /* renewed after the warning */
        k->notified = false;
        k->reason[0] = '\0';
        (void)unlinkat(k->folder, "notice/notice.json", 0);
    }
    if (!k->notified)
        return minus(now.left_ns, now.grace_ns);
    return now.left_ns < 100 * MS_NS ? now.left_ns : 100 * MS_NS;
}

/* Without IFF_UP among its flags an interface of this network namespace carries nothing. */
static void take_down(const char *name)
{
    struct ifreq request = {0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    (void)snprintf(request.ifr_name, sizeof request.ifr_name, "%.15s", name);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        (void)dprintf(2, "link %s stays up: %s\n", name, strerror(errno));
    if (fd >= 0)
        close(fd);
}

/* What the sandbox still sends would be nobody's: its link ("NAMESPACE'S PATH/NAME", or a NAME
 * of this namespace) goes down before its processes do. */
static void cut_link(struct keeper *k)
{
    char path[PATH_MAX];
    if (k->link_down || k->plan.link == NULL || k->plan.link[0] == '\0')
        return;
    k->link_down = true;
    const char *slash = strrchr(k->plan.link, '/');
    if (slash == NULL) {
        take_down(k->plan.link);
        return;
    }
    (void)snprintf(path, sizeof path, "%.*s", (int)(slash - k->plan.link), k->plan.link);
    int own = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int there = open(path, O_RDONLY | O_CLOEXEC);
    if (own >= 0 && there >= 0 && setns(there, CLONE_NEWNET) == 0) {
        take_down(slash + 1);
        if (setns(own, CLONE_NEWNET) != 0)
            (void)dprintf(2, "the keeper stays in the task's network: %s\n", strerror(errno));
    }
    if (own >= 0)
        close(own);
    if (there >= 0)
        close(there);
}

void kill_everything(struct keeper *k)
{
    cut_link(k);
    if (lives(k->init, k->init_ticks))
        (void)kill(k->init, SIGKILL); /* process 1 takes its whole pid namespace along */
    cgroup_kill(&k->cgroup);
}

void end_task(struct keeper *k, const char *why)
{
    if (!k->killed) {
        k->killed = true;
        (void)snprintf(k->reason, sizeof k->reason, "%s", why);
    }
    kill_everything(k);
}
