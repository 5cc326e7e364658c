/* Keeps one task: starts its sandbox once, holds its deadline, writes down how it ended.
 *
 * The contract, its folder and its files: docs/keeper.md; shim.py is the same in Python.
 */
#ifndef KEEPER_H
#define KEEPER_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "cgroup.h"
#include "json.h"
#include "output.h"

#define CONTRACT 1
#define TICK_NS (500 * MS_NS)
#define KILL_PATIENCE_NS (30 * SECOND_NS)

enum phase {
    WARMING, /* frozen: it runs, and imports what it will need */
    HELD,    /* made, and waiting to become a lease's */
    RUNNING
};

/* What spec.json says, as far as it matters after the start. */
struct plan {
    char *lease_id, *stage, *program, *link;
    bool crun, private, hooks;
    enum phase first;
    int64_t disk_bytes, disk_inodes, log_limit_bytes;
};

struct keeper {
    int folder;        /* the lease's, by descriptor */
    struct plan plan;
    struct json spec;  /* until the sandbox is made */
    struct cgroup cgroup;
    struct output log;
    int control;
    int writes;        /* readable once something in /work is written, or -1 */
    enum phase phase;
    pid_t child;       /* the process to wait for: crun's container, or bubblewrap itself */
    pid_t init;        /* the sandbox's process 1, by the host's number */
    int64_t init_ticks; /* and when it began: a pid alone may be another's by now */
    int release_fd;
    pid_t guard_pid;
    int guard_pipe;
    bool notified, killed, started, link_down;
    pid_t *told;       /* who got SIGTERM */
    size_t told_count;
    int64_t oom_kills, max_memory_bytes;
    char reason[64], message[1024];
};

/* How long until the kill, the warning before it, and what decides. */
struct remaining {
    int64_t left_ns, grace_ns;
    char why[64];
};

/* keeper.c: note an expected failure and answer -1; its text becomes exit.json's message. */
int trouble(struct keeper *k, const char *reason, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool write_exit(struct keeper *k, int code, int number, int64_t ended_ns, int64_t cpu_ns,
                bool clean);

/* stage.c: a mount namespace of its own, and under `stage` all that the sandbox will show. */
int isolate(struct keeper *k);
bool make_folders(const char *path);

/* sandbox.c: the runtime. */
int create(struct keeper *k);
/* Let the task run. `started.json` is on disk by now. */
int release(struct keeper *k);
bool delete_container(struct keeper *k);

/* spawn.c */
struct descriptor {
    int source, target;
};
struct limit {
    int kind;
    int64_t value;
};
struct child {
    char *const *argv;
    int folder;     /* to work in, -1 = stay */
    int64_t uid;    /* to drop to, -1 = stay */
    const struct descriptor *fds;
    size_t fd_count;
    const struct limit *limits;
    size_t limit_count;
};
pid_t spawn(const struct child *child);
int pidfd_of(pid_t pid);
/* A wait status as a shell's exit code: 128 + n for signal n. */
int wait_code(int status);
/* The RLIMIT_ number of a name, with or without that prefix; -1 if there is none. */
int limit_kind(const char *name);

/* quota.c: count what is on disk when it is time to, and end a task that holds too much. */
void quota_look(struct keeper *k);
/* Nanoseconds until then. */
int64_t quota_wait_ns(struct keeper *k);
/* `writes` was readable. */
void quota_written(struct keeper *k);

/* deadline.c */
void remaining(struct keeper *k, struct remaining *answer);
/* Warn, or kill, if it is time to; nanoseconds until there is something to do. */
int64_t enforce(struct keeper *k);
/* End every process of the sandbox now; the first reason stays. */
void end_task(struct keeper *k, const char *why);
void kill_everything(struct keeper *k);

/* guard.c */
int guard(struct keeper *k);
void tell_guard(struct keeper *k);
void dismiss_guard(struct keeper *k);
/* Kill and remove whatever is left of the sandbox; true when nothing is. */
bool clear_away(struct keeper *k);

/* hold.c: what is done while the sandbox waits; nanoseconds until the next look, -1 = trouble. */
int64_t mind(struct keeper *k);
int set_going(struct keeper *k);

/* check.c: trials of single parts, for tests. */
int check(int argc, char **argv);

#endif
