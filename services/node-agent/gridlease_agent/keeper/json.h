/* JSON as the agent writes it: parsed in place into a flat array, bounded in depth and size. */
#ifndef KEEPER_JSON_H
#define KEEPER_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

enum json_kind {
    JSON_NULL,
    JSON_TRUE,
    JSON_FALSE,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* One value: its text [start, end), and the index of the first node that is not inside it. */
struct json_node {
    uint32_t start, end, next;
    enum json_kind kind;
};

struct json {
    char *text;
    size_t length;
    struct json_node *nodes;
    uint32_t count, room;
};

enum { JSON_DEPTH = 64, JSON_NODES = 1 << 20, JSON_BYTES = 32 << 20 };

/* Parse `text` (which `json` owns from now on, also after a failure, until json_free). */
bool json_parse(struct json *json, char *text, size_t length);
void json_free(struct json *json);

/* A member's or an element's node; 0 (the root, which is nobody's member) if there is none. */
uint32_t json_get(const struct json *json, uint32_t object, const char *key);
uint32_t json_at(const struct json *json, uint32_t array, uint32_t index);
/* The elements of an array one after the other: first, then next until 0. */
uint32_t json_first(const struct json *json, uint32_t array);
uint32_t json_next(const struct json *json, uint32_t array, uint32_t element);

/* A string in memory of its own, or NULL: no string, no memory, or a NUL byte in it. */
char *json_text(const struct json *json, uint32_t node);
/* json_text of a member. */
char *json_member(const struct json *json, uint32_t object, const char *key);
/* A whole number; one that is too large is the largest there is. False if it is none. */
bool json_integer(const struct json *json, uint32_t node, int64_t *value);
bool json_is(const struct json *json, uint32_t node, enum json_kind kind);

/* Write a string as JSON; bytes that are no UTF-8 become question marks. */
void json_quote(FILE *out, const char *text);
/* Write a whole value again, strings decoded and quoted anew. */
void json_echo(FILE *out, const struct json *json, uint32_t node);

#endif
