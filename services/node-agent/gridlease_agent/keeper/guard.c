#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "facts.h"
#include "keeper.h"

/* What the guard must know to act alone; the end of the pipe without `over` means: act. */
struct word {
    int64_t init_ticks;
    pid_t init;
    bool started, over;
};

static void reap_all(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

bool clear_away(struct keeper *k)
{
    int64_t until = monotonic_ns() + KILL_PATIENCE_NS;
    struct timespec pause = {0, 2 * 1000 * 1000};
    bool deleted = !k->plan.crun;
    for (;;) {
        kill_everything(k);
        deleted = deleted || delete_container(k);
        reap_all(); /* a zombie holds its cgroup */
        if (cgroup_remove(&k->cgroup) && !lives(k->init, k->init_ticks))
            return true;
        if (monotonic_ns() > until)
            return false;
        (void)nanosleep(&pause, NULL);
    }
}

static void act(struct keeper *k)
{
    int64_t ended = boottime_ns();
    bool clean = clear_away(k);
    output_resume(&k->log);
    (void)output_drain(&k->log, 64); /* what the task said last is still in the pipe */
    if (faccessat(k->folder, "exit.json", F_OK, 0) == 0)
        return;
    (void)trouble(k, "SHIM_LOST", "The task's keeper died; the task with it.");
    (void)write_exit(k, 137, 9, ended, 0, clean);
}

static _Noreturn void stand_guard(struct keeper *k, int fd)
{
    struct word word;
    const int theirs[] = {k->log.write_fd, k->control, k->guard_pipe, k->release_fd,
                          k->writes};
    (void)setsid();
    for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++)
        if (theirs[i] >= 0)
            close(theirs[i]);
    json_free(&k->spec);
    for (;;) {
        ssize_t got = read(fd, &word, sizeof word);
        if (got < 0 && errno == EINTR)
            continue;
        if (got != sizeof word)
            break;
        if (word.over)
            _exit(0); /* the keeper ended in good order */
        k->init = word.init;
        k->init_ticks = word.init_ticks;
        k->started = word.started;
    }
    act(k);
    _exit(0);
}

int guard(struct keeper *k)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return trouble(k, "START_FAILED", "make a pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        close(ends[1]);
        stand_guard(k, ends[0]);
    }
    close(ends[0]);
    if (pid < 0) {
        close(ends[1]);
        return trouble(k, "START_FAILED", "fork the guard: %s", strerror(errno));
    }
    if (k->guard_pipe >= 0)
        close(k->guard_pipe);
    k->guard_pid = pid;
    k->guard_pipe = ends[1];
    return 0;
}

static void send_word(struct keeper *k, bool over)
{
    struct word word = {k->init_ticks, k->init, k->started, over};
    while (k->guard_pipe >= 0 && write(k->guard_pipe, &word, sizeof word) < 0)
        if (errno != EINTR)
            break; /* it died: the next one is forked from what this process knows */
}

void tell_guard(struct keeper *k)
{
    send_word(k, false);
}

void dismiss_guard(struct keeper *k)
{
    send_word(k, true);
}
