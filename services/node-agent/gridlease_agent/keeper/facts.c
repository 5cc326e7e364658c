#include "facts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0)
        abort(); /* a keeper without a clock keeps nothing: the guard ends the sandbox */
    return now.tv_sec * SECOND_NS + now.tv_nsec;
}

int64_t boottime_ns(void)
{
    return clock_ns(CLOCK_BOOTTIME);
}

int64_t raw_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC_RAW);
}

int64_t wall_ns(void)
{
    return clock_ns(CLOCK_REALTIME);
}

int64_t monotonic_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

int64_t minus(int64_t a, int64_t b)
{
    int64_t result;
    return __builtin_sub_overflow(a, b, &result) ? (b > 0 ? INT64_MIN : INT64_MAX) : result;
}

int64_t times(int64_t a, int64_t b)
{
    int64_t result;
    return __builtin_mul_overflow(a, b, &result) ? ((a < 0) == (b < 0) ? INT64_MAX : INT64_MIN)
                                                 : result;
}

size_t read_small(int folder, const char *path, char *text, size_t size)
{
    size_t length = 0;
    int fd = openat(folder, path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && length < size - 1) {
        ssize_t got = read(fd, text + length, size - 1 - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        length += (size_t)got;
    }
    if (fd >= 0)
        close(fd);
    text[length] = '\0';
    return length;
}

const char *boot_id(void)
{
    static char text[64];
    if (text[0] == '\0') {
        read_small(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof text);
        text[strcspn(text, " \n")] = '\0';
    }
    return text;
}

/* The part of /proc/PID/stat after the name, which may hold anything but ends at the last ")". */
static const char *stat_of(pid_t pid, char *text, size_t size)
{
    char path[64];
    if (snprintf(path, sizeof path, "/proc/%d/stat", (int)pid) < 0)
        return "";
    read_small(AT_FDCWD, path, text, size);
    const char *bracket = strrchr(text, ')');
    return bracket != NULL && bracket[1] == ' ' ? bracket + 2 : "";
}

int64_t start_ticks(pid_t pid)
{
    char text[2048];
    const char *at = stat_of(pid, text, sizeof text);
    for (int i = 0; i < 19 && at != NULL; i++) {
        at = strchr(at, ' ');
        at = at != NULL ? at + 1 : NULL;
    }
    return at != NULL ? strtoll(at, NULL, 10) : 0;
}

char state_letter(pid_t pid)
{
    char text[2048];
    char letter = stat_of(pid, text, sizeof text)[0];
    return letter != '\0' ? letter : 'X';
}

bool lives(pid_t pid, int64_t ticks)
{
    if (pid <= 0 || start_ticks(pid) != ticks)
        return false;
    char letter = state_letter(pid);
    return letter != 'Z' && letter != 'X';
}

size_t children_of(pid_t pid, pid_t *found, size_t most)
{
    char path[64], text[8192];
    size_t count = 0;
    if (snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid) < 0)
        return 0;
    read_small(AT_FDCWD, path, text, sizeof text);
    char *at = text, *end;
    while (count < most) {
        long number = strtol(at, &end, 10);
        if (end == at || *end != ' ') /* a number that the buffer cut off is no pid */
            break;
        found[count++] = (pid_t)number;
        at = end;
    }
    return count;
}
