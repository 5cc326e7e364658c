#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keeper.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

int wait_code(int status)
{
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int limit_kind(const char *name)
{
    static const struct {
        const char *name;
        int kind;
    } known[] = {
        {"AS", RLIMIT_AS},           {"CORE", RLIMIT_CORE},       {"CPU", RLIMIT_CPU},
        {"DATA", RLIMIT_DATA},       {"FSIZE", RLIMIT_FSIZE},     {"MEMLOCK", RLIMIT_MEMLOCK},
        {"MSGQUEUE", RLIMIT_MSGQUEUE}, {"NICE", RLIMIT_NICE},     {"NOFILE", RLIMIT_NOFILE},
        {"NPROC", RLIMIT_NPROC},     {"RTPRIO", RLIMIT_RTPRIO},   {"STACK", RLIMIT_STACK},
        {"SIGPENDING", RLIMIT_SIGPENDING},
    };
    if (strncmp(name, "RLIMIT_", 7) == 0)
        name += 7;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, name) == 0)
            return known[i].kind;
    return -1;
}

static bool set_limit(const struct limit *limit)
{
    struct rlimit now;
    if (getrlimit(limit->kind, &now) != 0)
        return false;
    rlim_t value = (rlim_t)limit->value;
    if (now.rlim_max != RLIM_INFINITY && now.rlim_max < value)
        value = now.rlim_max;
    now = (struct rlimit){value, value};
    return setrlimit(limit->kind, &now) == 0;
}

/* Between fork and exec: die with the keeper, take the given descriptors, limits and user. */
static bool prepare(const struct child *child, pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent)
        return false;
    for (size_t i = 0; i < child->fd_count; i++)
        if (dup2(child->fds[i].source, child->fds[i].target) < 0)
            return false;
    for (size_t i = 0; i < child->limit_count; i++)
        if (!set_limit(&child->limits[i]))
            return false;
    const int numbers[] = {SIGTERM, SIGHUP, SIGINT, SIGPIPE};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (signal(numbers[i], SIG_DFL) == SIG_ERR)
            return false;
    if (child->folder >= 0 && fchdir(child->folder) != 0)
        return false;
    if (child->uid < 0)
        return true;
    uid_t uid = (uid_t)child->uid;
    /* Changing the user cleared the parent's death signal. */
    return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
           setresuid(uid, uid, uid) == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0;
}

pid_t spawn(const struct child *child)
{
    static char path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *const environment[] = {path, NULL};
    pid_t parent = getpid(), pid = fork();
    if (pid != 0)
        return pid;
    if (prepare(child, parent))
        execve(child->argv[0], child->argv, environment);
    (void)dprintf(2, "cannot run %s: %s\n", child->argv[0], strerror(errno));
    _exit(127);
}
