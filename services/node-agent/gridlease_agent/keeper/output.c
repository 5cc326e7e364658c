#include "output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

/* In .bss: only as much of it as the task says at once is ever real memory. */
static char chunk[1 << 16];

bool output_open(struct output *o, int folder, int64_t limit)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    *o = (struct output){ends[0], ends[1], -1, limit, limit, false};
    if (fcntl(o->read_fd, F_SETFL, O_NONBLOCK) != 0)
        return false;
    (void)fcntl(o->read_fd, F_SETPIPE_SZ, 1 << 18); /* as large as this user may have it */
    o->file = openat(folder, "log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    return o->file >= 0;
}

static void keep(struct output *o, size_t length)
{
    size_t kept = (int64_t)length <= o->left ? length : (size_t)o->left;
    o->left -= (int64_t)kept;
    if (!write_all(o->file, chunk, kept))
        o->truncated = true; /* the host's disk is full: the task must not hang on it */
    if (kept == length || o->truncated)
        return;
    o->truncated = true;
    (void)dprintf(o->file, "\n[gridlease] the log is cut here: its limit is %lld bytes\n",
                  (long long)o->limit);
}

bool output_drain(struct output *o, int chunks)
{
    while (chunks > 0) {
        ssize_t got = read(o->read_fd, chunk, sizeof chunk);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EAGAIN)
            return true;
        if (got <= 0)
            return false;
        keep(o, (size_t)got);
        chunks--;
    }
    return true;
}

void output_resume(struct output *o)
{
    struct stat facts;
    if (fstat(o->file, &facts) == 0) {
        o->truncated = facts.st_size > o->limit;
        o->left = o->truncated ? 0 : o->limit - facts.st_size;
    }
}
