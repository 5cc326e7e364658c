/* Files of the lease's folder, by its descriptor: a rename of the folder does not disturb them. */
#ifndef KEEPER_RECORD_H
#define KEEPER_RECORD_H

#include <stdbool.h>
#include <stdio.h>

#include "json.h"

/* The object in a file; false, and nothing to free, where there is none (yet). */
bool read_record(int folder, const char *name, struct json *json);

/* Text that is written to and then saved; `text` is valid once `out` is closed. */
struct page {
    FILE *out;
    char *text;
    size_t length;
};

bool page_open(struct page *page);
/* Durably and atomically: the file is whole or absent, also after a power cut. Frees the page. */
bool page_save(struct page *page, int folder, const char *name);
/* Write and sync a file of this name, not yet under a name that anybody reads. Frees the page. */
bool page_spill(struct page *page, int folder, const char *name);

bool write_all(int fd, const char *text, size_t length);

#endif
