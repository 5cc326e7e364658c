#include "record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

bool write_all(int fd, const char *text, size_t length)
{
    while (length > 0) {
        ssize_t done = write(fd, text, length);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        text += done;
        length -= (size_t)done;
    }
    return true;
}

/* The whole file, its end marked by a NUL byte; NULL where it cannot be read or is too large. */
static char *read_whole(int fd, size_t *length)
{
    struct stat facts;
    if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size > JSON_BYTES)
        return NULL;
    size_t size = (size_t)facts.st_size;
    char *text = malloc(size + 1);
    *length = 0;
    while (text != NULL && *length < size) {
        ssize_t got = read(fd, text + *length, size - *length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        *length += (size_t)got;
    }
    if (text != NULL)
        text[*length] = '\0';
    return text;
}

bool read_record(int folder, const char *name, struct json *json)
{
    size_t length = 0;
    *json = (struct json){0};
    int fd = openat(folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return false;
    char *text = read_whole(fd, &length);
    close(fd);
    if (text != NULL && json_parse(json, text, length) && json_is(json, 0, JSON_OBJECT))
        return true;
    if (text != NULL)
        json_free(json);
    return false;
}

bool page_open(struct page *page)
{
    *page = (struct page){0};
    page->out = open_memstream(&page->text, &page->length);
    return page->out != NULL;
}

bool page_spill(struct page *page, int folder, const char *name)
{
    bool good = !ferror(page->out);
    good = fclose(page->out) == 0 && good;
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
    int fd = good ? openat(folder, name, flags, 0644) : -1;
    good = fd >= 0 && write_all(fd, page->text, page->length) && fsync(fd) == 0;
    if (fd >= 0)
        good = close(fd) == 0 && good;
    free(page->text);
    *page = (struct page){0};
    return good;
}

bool page_save(struct page *page, int folder, const char *name)
{
    char draft[256];
    int length = snprintf(draft, sizeof draft, "%s.new", name);
    if (length < 0 || (size_t)length >= sizeof draft) {
        fclose(page->out);
        free(page->text);
        return false;
    }
    return page_spill(page, folder, draft) && renameat(folder, draft, folder, name) == 0 &&
           fsync(folder) == 0;
}
