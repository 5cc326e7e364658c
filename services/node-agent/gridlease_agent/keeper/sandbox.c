#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "facts.h"
#include "keeper.h"
#include "record.h"

/* bubblewrap's descriptors: seccomp, info, block, arguments. See runtimes/bwrap.py. */
enum { SECCOMP_FD = 200, INFO_FD, BLOCK_FD, ARGUMENTS_FD };
enum { LIMITS = 16, WORDS = 4096 };

/* The last line of crun's log: its own words about what went wrong. */
static void last_words(struct keeper *k, char *text, size_t size)
{
    char tail[4096];
    int fd = openat(k->folder, "runtime.log", O_RDONLY | O_CLOEXEC);
    off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
    off_t from = end > (off_t)sizeof tail - 1 ? end - (off_t)sizeof tail + 1 : 0;
    ssize_t got = fd >= 0 ? pread(fd, tail, sizeof tail - 1, from) : 0;
    if (fd >= 0)
        close(fd);
    while (got > 0 && (tail[got - 1] == '\n' || tail[got - 1] == ' '))
        got--;
    tail[got > 0 ? got : 0] = '\0';
    const char *line = strrchr(tail, '\n');
    (void)snprintf(text, size, "%.*s", (int)size - 1, line != NULL ? line + 1 : tail);
}

/* Run one crun command to its end, for a while; its wait status, -1 if it could not be run. */
static int run_crun(struct keeper *k, char **words, const struct descriptor *fds, size_t count)
{
    char root[PATH_MAX], log[] = "--log", name[] = "runtime.log";
    char manager[] = "--cgroup-manager=cgroupfs", option[] = "--root";
    char *argv[16] = {k->plan.program, option, root, manager, log, name};
    size_t length = 6;
    if (snprintf(root, sizeof root, "%s/crun", k->plan.stage) >= (int)sizeof root)
        return -1;
    while (*words != NULL && length < 15)
        argv[length++] = *words++;
    struct child child = {.argv = argv, .folder = k->folder, .uid = -1};
    child.fds = fds;
    child.fd_count = count;
    pid_t pid = spawn(&child);
    if (pid < 0)
        return -1;
    struct pollfd over = {pidfd_of(pid), POLLIN, 0};
    int ready;
    do
        ready = poll(&over, 1, (int)(KILL_PATIENCE_NS / MS_NS));
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        (void)kill(pid, SIGKILL); /* stuck: nothing has been released yet, or all is killed */
    if (over.fd >= 0)
        close(over.fd);
    int status = -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status;
}

static int crun(struct keeper *k, char **words, const struct descriptor *fds, size_t count)
{
    char said[512];
    int status = run_crun(k, words, fds, count);
    if (status == 0)
        return 0;
    last_words(k, said, sizeof said);
    if (said[0] != '\0')
        return trouble(k, "START_FAILED", "%s", said);
    return trouble(k, "START_FAILED", "crun %s failed (%d)", words[0],
                   status < 0 ? 127 : wait_code(status));
}

bool delete_container(struct keeper *k)
{
    char word[] = "delete", force[] = "--force";
    char *words[] = {word, force, k->plan.lease_id, NULL};
    return !k->plan.crun || run_crun(k, words, NULL, 0) == 0;
}

/* Overwrite a number of the specification with a smaller one, which always fits. */
static void lower(struct keeper *k, uint32_t node, int64_t most)
{
    int64_t now;
    char text[32];
    if (!json_integer(&k->spec, node, &now) || now <= most)
        return;
    size_t room = k->spec.nodes[node].end - k->spec.nodes[node].start;
    int length = snprintf(text, sizeof text, "%*lld", (int)room, (long long)most);
    if (length == (int)room)
        memcpy(k->spec.text + k->spec.nodes[node].start, text, room);
}

/* What this process may not have, its child cannot be given: the limits are cut to ours. */
static void cut_limits(struct keeper *k, uint32_t oci)
{
    uint32_t process = json_get(&k->spec, oci, "process");
    uint32_t rows = json_get(&k->spec, process, "rlimits");
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row)) {
        char *name = json_member(&k->spec, row, "type");
        int kind = name != NULL ? limit_kind(name) : -1;
        struct rlimit own;
        free(name);
        if (kind < 0 || getrlimit(kind, &own) != 0 || own.rlim_max == RLIM_INFINITY)
            continue;
        lower(k, json_get(&k->spec, row, "soft"), (int64_t)own.rlim_max);
        lower(k, json_get(&k->spec, row, "hard"), (int64_t)own.rlim_max);
    }
}

static int write_config(struct keeper *k, const char *bundle)
{
    char path[PATH_MAX];
    uint32_t oci = json_get(&k->spec, 0, "oci");
    if (!json_is(&k->spec, oci, JSON_OBJECT))
        return trouble(k, "START_FAILED", "spec.json holds no configuration for crun");
    cut_limits(k, oci);
    if (snprintf(path, sizeof path, "%s/config.json", bundle) >= (int)sizeof path)
        return trouble(k, "START_FAILED", "the stage's name is too long");
    const struct json_node *node = &k->spec.nodes[oci];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    bool good = fd >= 0 && write_all(fd, k->spec.text + node->start, node->end - node->start);
    good = fd >= 0 && close(fd) == 0 && good;
    return good ? 0 : trouble(k, "START_FAILED", "write %s: %s", path, strerror(errno));
}

static int create_crun(struct keeper *k)
{
    char bundle[PATH_MAX - 16], pid_file[PATH_MAX], text[32];
    char word[] = "create", first[] = "--bundle", second[] = "--pid-file";
    char *words[] = {word, first, bundle, second, pid_file, k->plan.lease_id, NULL};
    const struct descriptor output[] = {{k->log.write_fd, 1}, {k->log.write_fd, 2}};
    if (snprintf(bundle, sizeof bundle, "%s/bundle", k->plan.stage) >= (int)sizeof bundle ||
        snprintf(pid_file, sizeof pid_file, "%s/pid", k->plan.stage) >= (int)sizeof pid_file)
        return trouble(k, "START_FAILED", "the stage's name is too long");
    if (write_config(k, bundle) != 0 || crun(k, words, output, 2) != 0)
        return -1;
    read_small(AT_FDCWD, pid_file, text, sizeof text);
    k->child = k->init = (pid_t)strtol(text, NULL, 10);
    return k->init > 0 ? 0 : trouble(k, "START_FAILED", "crun told no process of the sandbox");
}

/* A descriptor to read `data` from. */
static int filled(const char *data, size_t length)
{
    int fd = memfd_create("gridlease", MFD_CLOEXEC);
    if (fd >= 0 && write_all(fd, data, length) && lseek(fd, 0, SEEK_SET) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* The specification's seccomp program, out of base64 (RFC 4648). */
static int seccomp_fd(struct keeper *k)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *text = json_member(&k->spec, 0, "seccomp");
    size_t length = 0;
    unsigned bits = 0, held = 0;
    for (const char *at = text; at != NULL && *at != '\0' && *at != '='; at++) {
        const char *found = strchr(letters, *at);
        if (found == NULL) {
            free(text);
            return -1;
        }
        held = held << 6 | (unsigned)(found - letters);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            text[length++] = (char)(held >> bits); /* never ahead of what is read */
        }
    }
    int fd = text != NULL ? filled(text, length) : -1;
    free(text);
    return fd;
}

/* The specification's options, each ended by a NUL byte. */
static int options_fd(struct keeper *k)
{
    struct page page;
    uint32_t rows = json_get(&k->spec, 0, "options");
    if (!page_open(&page))
        return -1;
    bool good = rows != 0;
    for (uint32_t row = json_first(&k->spec, rows); row; row = json_next(&k->spec, rows, row)) {
        char *text = json_text(&k->spec, row);
        good = good && text != NULL && fputs(text, page.out) >= 0 && fputc('\0', page.out) == 0;
        free(text);
    }
    good = fclose(page.out) == 0 && good;
    int fd = good ? filled(page.text, page.length) : -1;
    free(page.text);
    return fd;
}

/* The rlimits of the specification but NPROC, which is answered apart. */
static size_t read_limits(struct keeper *k, struct limit *limits, int64_t *tasks)
{
    uint32_t rows = json_get(&k->spec, 0, "rlimits");
    size_t count = 0;
    *tasks = -1;
    if (rows == 0 || !json_is(&k->spec, rows, JSON_OBJECT))
        return 0;
    for (uint32_t i = rows + 1; i < k->spec.nodes[rows].next; i = k->spec.nodes[i + 1].next) {
        char *name = json_text(&k->spec, i);
        int64_t value = 0;
        int kind = name != NULL ? limit_kind(name) : -1;
        free(name);
        if (kind < 0 || !json_integer(&k->spec, i + 1, &value))
            continue;
        if (kind == RLIMIT_NPROC)
            *tasks = value;
        else if (count < LIMITS - 1)
            limits[count++] = (struct limit){kind, value};
    }
    return count;
}

/* The sandbox's process 1, as bubblewrap reports it through --info-fd; 0 if it does not. */
static pid_t told_pid(int fd)
{
    char text[4096];
    size_t length = 0;
    int64_t pid = 0, until = monotonic_ns() + 10 * SECOND_NS;
    while (pid == 0 && length < sizeof text - 1) {
        struct pollfd ready = {fd, POLLIN, 0};
        int64_t left = minus(until, monotonic_ns()) / MS_NS;
        if (left <= 0 || poll(&ready, 1, (int)left) == 0)
            break;
        ssize_t got = read(fd, text + length, sizeof text - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
        text[length] = '\0';
        char *copy = strdup(text);
        struct json record;
        if (copy != NULL) {
            if (json_parse(&record, copy, length))
                (void)json_integer(&record, json_get(&record, 0, "child-pid"), &pid);
            json_free(&record);
        }
    }
    return (pid_t)pid;
}

static void close_all(const struct descriptor *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (fds[i].source >= 0)
            close(fds[i].source);
}

/* bubblewrap's command line; NULL where there is none. */
static char **command_line(struct keeper *k)
{
    uint32_t rows = json_get(&k->spec, 0, "program");
    char **words = calloc(WORDS + 1, sizeof *words);
    size_t count = 0;
    for (uint32_t row = words ? json_first(&k->spec, rows) : 0; row && count < WORDS;
         row = json_next(&k->spec, rows, row))
        if ((words[count++] = json_text(&k->spec, row)) == NULL)
            break;
    return words;
}

static pid_t spawn_bwrap(struct keeper *k, const struct descriptor *fds, size_t count,
                         int64_t *tasks)
{
    struct limit limits[LIMITS];
    int64_t uid = -1;
    size_t limited = read_limits(k, limits, tasks);
    (void)json_integer(&k->spec, json_get(&k->spec, 0, "run_as"), &uid);
    if (uid >= 0 && *tasks >= 0) {
        limits[limited++] = (struct limit){RLIMIT_NPROC, *tasks}; /* the lease's uid alone */
        *tasks = -1;
    }
    char **words = command_line(k);
    struct child child = {.argv = words, .folder = -1, .uid = uid, .fds = fds, .fd_count = count};
    child.limits = limits;
    child.limit_count = limited;
    pid_t pid = words != NULL && words[0] != NULL ? spawn(&child) : -1;
    for (size_t i = 0; words != NULL && words[i] != NULL; i++)
        free(words[i]);
    free(words);
    return pid;
}

static int create_bwrap(struct keeper *k)
{
    int info[2], block[2];
    if (pipe2(info, O_CLOEXEC) != 0 || pipe2(block, O_CLOEXEC) != 0)
        return trouble(k, "START_FAILED", "make a pipe: %s", strerror(errno));
    k->release_fd = block[1];
    const struct descriptor fds[] = {
        {k->log.write_fd, 1},    {k->log.write_fd, 2}, {seccomp_fd(k), SECCOMP_FD},
        {info[1], INFO_FD},      {block[0], BLOCK_FD}, {options_fd(k), ARGUMENTS_FD},
    };
    int64_t tasks = -1;
    bool whole = fds[2].source >= 0 && fds[5].source >= 0;
    k->child = whole ? spawn_bwrap(k, fds, sizeof fds / sizeof *fds, &tasks) : -1;
    close_all(fds + 2, 4);
    k->init = k->child > 0 ? told_pid(info[0]) : 0;
    close(info[0]);
    if (!whole || k->child < 0)
        return trouble(k, "START_FAILED", "bubblewrap cannot be run: %s", strerror(errno));
    if (k->init <= 0)
        return trouble(k, "START_FAILED",
                       "bubblewrap could not make the sandbox; its words are in the log");
    if (tasks >= 0) {
        /* Only inside: there the count begins anew (Linux 5.14), outside the user has others. */
        struct rlimit limit = {(rlim_t)tasks, (rlim_t)tasks};
        (void)prlimit(k->init, RLIMIT_NPROC, &limit, NULL);
    }
    return 0;
}

int create(struct keeper *k)
{
    if ((k->plan.crun ? create_crun(k) : create_bwrap(k)) != 0)
        return -1;
    k->init_ticks = start_ticks(k->init);
    close(k->log.write_fd);
    k->log.write_fd = -1;
    return 0;
}

/* Open the fifo that crun's process 1 waits at, as `crun start` would; false if it is not so. */
static bool open_gate(struct keeper *k)
{
    char path[PATH_MAX];
    int length = snprintf(path, sizeof path, "%s/crun/%s/exec.fifo", k->plan.stage,
                          k->plan.lease_id);
    if (length < 0 || length >= (int)sizeof path)
        return false;
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW); /* ENXIO: nobody waits */
    if (fd < 0)
        return false;
    bool done = write_all(fd, "1", 1);
    close(fd);
    return done && unlink(path) == 0;
}

int release(struct keeper *k)
{
    char word[] = "start";
    char *words[] = {word, k->plan.lease_id, NULL};
    if (k->plan.crun) /* hooks that follow the start are crun's to run */
        return !k->plan.hooks && open_gate(k) ? 0 : crun(k, words, NULL, 0);
    bool done = write_all(k->release_fd, "1", 1);
    close(k->release_fd);
    k->release_fd = -1;
    return done ? 0 : trouble(k, "START_FAILED", "bubblewrap does not listen");
}
