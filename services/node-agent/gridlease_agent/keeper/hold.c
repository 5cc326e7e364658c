#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "facts.h"
#include "keeper.h"
#include "record.h"

#define WARMING_NS (2 * MS_NS)

static int write_held(struct keeper *k)
{
    struct page page;
    if (!page_open(&page))
        return trouble(k, "START_FAILED", "no memory");
    fprintf(page.out, "{\"boot_id\": \"%s\", \"boottime_ns\": %lld, ", boot_id(),
            (long long)boottime_ns());
    fprintf(page.out, "\"init_pid\": %d, \"init_ticks\": %lld}", (int)k->init,
            (long long)k->init_ticks);
    if (!page_save(&page, k->folder, "held.json"))
        return trouble(k, "START_FAILED", "write held.json: %s", strerror(errno));
    return 0;
}

static int write_started(struct keeper *k)
{
    struct page page;
    k->started = true;
    if (!page_open(&page))
        return trouble(k, "START_FAILED", "no memory");
    fprintf(page.out, "{\"boot_id\": \"%s\", \"init_pid\": %d, \"init_ticks\": %lld, ", boot_id(),
            (int)k->init, (long long)k->init_ticks);
    fprintf(page.out, "\"boottime_ns\": %lld, \"raw_ns\": %lld, \"wall_ns\": %lld}",
            (long long)boottime_ns(), (long long)raw_ns(), (long long)wall_ns());
    if (!page_save(&page, k->folder, "started.json"))
        return trouble(k, "START_FAILED", "write started.json: %s", strerror(errno));
    tell_guard(k);
    return 0;
}

/* When it was thawed, for who measures; not waited for, and nothing depends on it. */
static void note_thaw(struct keeper *k, int64_t at)
{
    int fd = openat(k->folder, "thawed.json", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW,
                    0600);
    if (fd < 0)
        return;
    dprintf(fd, "{\"boottime_ns\": %lld}", (long long)at);
    close(fd);
}

int set_going(struct keeper *k)
{
    struct remaining now;
    bool held = k->phase == HELD;
    remaining(k, &now);
    if (now.left_ns <= 0 || strcmp(now.why, "DEADLINE") != 0)
        return trouble(k, now.why, "It was over before the task could start.");
    if (write_started(k) != 0)
        return -1;
    k->phase = RUNNING;
    remaining(k, &now); /* a slow disk may have used it up: then nothing of it runs */
    if (now.left_ns <= 0) {
        end_task(k, now.why);
        return 0;
    }
    if (!held || k->plan.first == HELD)
        return release(k);
    int64_t at = boottime_ns();
    if (!cgroup_thaw(&k->cgroup))
        return trouble(k, "START_FAILED", "thaw the sandbox: %s", strerror(errno));
    note_thaw(k, at);
    return 0;
}

/* Freeze what has said, by a file, that it is warm. */
static int freeze(struct keeper *k)
{
    if (faccessat(k->folder, "work/.gridlease/warm", F_OK, AT_SYMLINK_NOFOLLOW) != 0)
        return 0;
    if (!cgroup_freeze(&k->cgroup))
        return trouble(k, "START_FAILED", "the sandbox could not be frozen");
    k->phase = HELD;
    return write_held(k);
}

int64_t mind(struct keeper *k)
{
    struct remaining now;
    remaining(k, &now);
    if (now.left_ns <= 0) {
        end_task(k, now.why);
        return TICK_NS;
    }
    if (k->phase == WARMING)
        return freeze(k) == 0 ? WARMING_NS : -1;
    if (faccessat(k->folder, "held.json", F_OK, 0) != 0 && write_held(k) != 0)
        return -1;
    if (faccessat(k->folder, "release.json", F_OK, 0) == 0)
        return set_going(k) == 0 ? 0 : -1;
    return now.left_ns < TICK_NS ? now.left_ns : TICK_NS;
}
