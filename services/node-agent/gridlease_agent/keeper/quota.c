#include <fcntl.h>
#include <stdio.h>
#include <sys/fanotify.h>
#include <unistd.h>

#include "facts.h"
#include "keeper.h"
#include "usage.h"

/* What is on disk is counted once a second, and sooner where more could be than is allowed: the
 * kernel tells of the first write to /work after a count, and the next count comes before a task
 * that writes as fast as memory takes it could have filled what is left. A calm task costs nothing.
 * What is written through a mapping is not told of: that is found by the second's count. */
#define PAUSE_NS SECOND_NS
#define LEAST_PAUSE_NS (2 * MS_NS)
#define FASTEST INT64_C(4) /* bytes in a nanosecond: faster than any disk or page cache */
#define SLICE_NS (5 * MS_NS)

static struct usage usage;
static int64_t begun_ns, soonest_ns, latest_ns, before_bytes;
static bool wanted;

/* A descriptor that is readable once something in /work is written; -1 where there is no such
 * thing: an ordinary user's, or one of more than fs.fanotify.max_user_groups. It is closed, never
 * read: reading would open the task's files. */
static int watch(struct keeper *k)
{
    char path[64];
    int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK, O_RDONLY | O_NONBLOCK);
    (void)snprintf(path, sizeof path, "/proc/%d/root/work", (int)k->init);
    if (fd >= 0 && fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_MOUNT,
                                 FAN_MODIFY | FAN_CLOSE_WRITE, AT_FDCWD, path)) {
        close(fd);
        return -1;
    }
    return fd;
}

static void unwatch(struct keeper *k)
{
    if (k->writes >= 0)
        close(k->writes);
    k->writes = -1;
}

void quota_written(struct keeper *k)
{
    unwatch(k);
    wanted = true;
}

int64_t quota_wait_ns(struct keeper *k)
{
    if (k->killed || k->phase != RUNNING)
        return INT64_MAX;
    if (usage.counting)
        return SLICE_NS;
    int64_t wait = minus(wanted ? soonest_ns : latest_ns, monotonic_ns());
    return wait > 0 ? wait : 0;
}

/* When to count again, at the soonest and at the latest. */
static void plan_next(struct keeper *k)
{
    int64_t now = monotonic_ns(), spent = minus(now, begun_ns);
    int64_t left = (k->plan.disk_bytes - usage.bytes) / FASTEST;
    int64_t files = (k->plan.disk_inodes - usage.files) * 1000; /* a microsecond for each */
    bool grows = usage.bytes - before_bytes > (k->plan.disk_bytes - usage.bytes) / 8;
    left = files < left ? files : left;
    left = left < LEAST_PAUSE_NS ? LEAST_PAUSE_NS : left;
    left = left < 4 * spent ? 4 * spent : left; /* a large tree is no reason to count all the time */
    left = left < PAUSE_NS ? left : PAUSE_NS;
    soonest_ns = now + left;
    latest_ns = now + (k->writes < 0 && !wanted && grows ? left : PAUSE_NS);
    before_bytes = usage.bytes;
}

static void tell(struct keeper *k)
{
    if (usage.beyond)
        (void)snprintf(k->message, sizeof k->message,
                       "/work holds a path that is too long to be counted.");
    else
        (void)snprintf(k->message, sizeof k->message,
                       "/work held %lld bytes in %lld files; the limit is %lld bytes, %lld files.",
                       (long long)usage.bytes, (long long)usage.files,
                       (long long)k->plan.disk_bytes, (long long)k->plan.disk_inodes);
}

void quota_look(struct keeper *k)
{
    if (quota_wait_ns(k) > (usage.counting ? SLICE_NS : 0))
        return;
    if (!usage.counting) {
        begun_ns = monotonic_ns();
        wanted = false;
        if (k->writes < 0)
            k->writes = watch(k); /* before the count: what is written meanwhile asks for another */
        if (!usage_begin(&usage, k->folder, "work"))
            return;
    }
    enum usage_step step = usage_count(&usage, monotonic_ns() + SLICE_NS, k->plan.disk_inodes);
    if (step == USAGE_MORE)
        return;
    bool over = usage.beyond || usage.bytes > k->plan.disk_bytes ||
                usage.files > k->plan.disk_inodes;
    usage_end(&usage);
    plan_next(k);
    if (step != USAGE_DONE || !over)
        return;
    unwatch(k);
    tell(k);
    end_task(k, "DISK_QUOTA");
}
