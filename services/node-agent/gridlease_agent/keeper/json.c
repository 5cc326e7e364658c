#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct json *json;
    size_t at;
};

static bool value(struct reader *r, int depth);

static int look(const struct reader *r)
{
    return r->at < r->json->length ? (unsigned char)r->json->text[r->at] : -1;
}

static void skip_space(struct reader *r)
{
    int c = look(r);
    while (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
        r->at++;
        c = look(r);
    }
}

/* A new node that begins here; its index, or -1 where there are too many. */
static int64_t open_node(struct reader *r, enum json_kind kind)
{
    struct json *json = r->json;
    if (json->count == json->room) {
        uint32_t room = json->room ? json->room * 2 : 32;
        if (room > JSON_NODES)
            return -1;
        struct json_node *more = realloc(json->nodes, room * sizeof *more);
        if (more == NULL)
            return -1;
        json->nodes = more;
        json->room = room;
    }
    json->nodes[json->count] = (struct json_node){(uint32_t)r->at, 0, 0, kind};
    return json->count++;
}

static bool close_node(struct reader *r, int64_t index)
{
    r->json->nodes[index].end = (uint32_t)r->at;
    r->json->nodes[index].next = r->json->count;
    return true;
}

static int hex4(const char *text)
{
    int sum = 0;
    for (int i = 0; i < 4; i++) {
        char c = text[i];
        int digit = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
        if (digit < 0)
            return -1;
        sum = sum * 16 + digit;
    }
    return sum;
}

/* How many bytes the UTF-8 character at `text` has, 0 if it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *text, size_t left)
{
    unsigned char c = text[0];
    size_t length = c < 0x80 ? 1 : c >= 0xC2 && c < 0xE0 ? 2 : c >= 0xE0 && c < 0xF0 ? 3
                    : c >= 0xF0 && c < 0xF5 ? 4 : 0;
    if (length == 0 || length > left)
        return 0;
    for (size_t i = 1; i < length; i++)
        if ((text[i] & 0xC0) != 0x80)
            return 0;
    /* Overlong forms, surrogates, and what lies beyond the last character. */
    if ((c == 0xE0 && text[1] < 0xA0) || (c == 0xED && text[1] > 0x9F) ||
        (c == 0xF0 && text[1] < 0x90) || (c == 0xF4 && text[1] > 0x8F))
        return 0;
    return length;
}

/* The escape at `text` (after its backslash): its length in bytes and its character, or 0. */
static size_t escape(const char *text, size_t left, uint32_t *character)
{
    static const char letters[] = "\"\\/bfnrt", means[] = "\"\\/\b\f\n\r\t";
    if (left < 1)
        return 0;
    const char *found = text[0] != '\0' ? strchr(letters, text[0]) : NULL;
    if (found != NULL) {
        *character = (unsigned char)means[found - letters];
        return 1;
    }
    int high = text[0] == 'u' && left >= 5 ? hex4(text + 1) : -1;
    if (high < 0 || (high >= 0xDC00 && high < 0xE000))
        return 0;
    *character = (uint32_t)high;
    if (high < 0xD800 || high >= 0xE000)
        return 5;
    int low = left >= 11 && text[5] == '\\' && text[6] == 'u' ? hex4(text + 7) : -1;
    if (low < 0xDC00 || low >= 0xE000)
        return 0;
    *character = 0x10000 + (((uint32_t)high - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
    return 11;
}

static bool string(struct reader *r)
{
    int64_t node = open_node(r, JSON_STRING);
    if (node < 0 || look(r) != '"')
        return false;
    r->at++;
    for (;;) {
        int c = look(r);
        if (c < 0x20)
            return false;
        const char *here = r->json->text + r->at;
        size_t left = r->json->length - r->at;
        if (c == '"') {
            r->at++;
            return close_node(r, node);
        }
        uint32_t character;
        size_t length = c == '\\' ? escape(here + 1, left - 1, &character)
                                  : utf8_length((const unsigned char *)here, left);
        if (length == 0)
            return false;
        r->at += length + (c == '\\');
    }
}

static bool digits(struct reader *r)
{
    size_t from = r->at;
    while (look(r) >= '0' && look(r) <= '9')
        r->at++;
    return r->at > from;
}

static bool number(struct reader *r)
{
    int64_t node = open_node(r, JSON_NUMBER);
    if (node < 0)
        return false;
    if (look(r) == '-')
        r->at++;
    bool zero = look(r) == '0';
    size_t from = r->at;
    if (!digits(r) || (zero && r->at > from + 1))
        return false;
    if (look(r) == '.') {
        r->at++;
        if (!digits(r))
            return false;
    }
    if (look(r) == 'e' || look(r) == 'E') {
        r->at++;
        if (look(r) == '+' || look(r) == '-')
            r->at++;
        if (!digits(r))
            return false;
    }
    return close_node(r, node);
}

static bool word(struct reader *r, const char *text, enum json_kind kind)
{
    int64_t node = open_node(r, kind);
    size_t length = strlen(text);
    if (node < 0 || r->json->length - r->at < length ||
        memcmp(r->json->text + r->at, text, length) != 0)
        return false;
    r->at += length;
    return close_node(r, node);
}

/* The inside of an array or an object, up to and with its closing bracket. */
static bool members(struct reader *r, char closing, int depth)
{
    skip_space(r);
    if (look(r) == closing) {
        r->at++;
        return true;
    }
    for (;;) {
        if (closing == '}') {
            skip_space(r);
            if (!string(r))
                return false;
            skip_space(r);
            if (look(r) != ':')
                return false;
            r->at++;
        }
        if (!value(r, depth))
            return false;
        skip_space(r);
        int c = look(r);
        if (c != ',' && c != closing)
            return false;
        r->at++;
        if (c == closing)
            return true;
    }
}

static bool container(struct reader *r, int depth)
{
    bool object = look(r) == '{';
    int64_t node = open_node(r, object ? JSON_OBJECT : JSON_ARRAY);
    if (node < 0 || depth >= JSON_DEPTH)
        return false;
    r->at++;
    return members(r, object ? '}' : ']', depth + 1) && close_node(r, node);
}

static bool value(struct reader *r, int depth)
{
    skip_space(r);
    switch (look(r)) {
    case '{':
    case '[':
        return container(r, depth);
    case '"':
        return string(r);
    case 't':
        return word(r, "true", JSON_TRUE);
    case 'f':
        return word(r, "false", JSON_FALSE);
    case 'n':
        return word(r, "null", JSON_NULL);
    default:
        return number(r);
    }
}

bool json_parse(struct json *json, char *text, size_t length)
{
    *json = (struct json){.text = text, .length = length};
    struct reader r = {json, 0};
    if (length > JSON_BYTES || !value(&r, 0))
        return false;
    skip_space(&r);
    return r.at == length;
}

void json_free(struct json *json)
{
    free(json->text);
    free(json->nodes);
    *json = (struct json){0};
}

bool json_is(const struct json *json, uint32_t node, enum json_kind kind)
{
    return node < json->count && json->nodes[node].kind == kind;
}

/* Whether the key at `node` reads `key`. */
static bool is_key(const struct json *json, uint32_t node, const char *key)
{
    char *text = json_text(json, node);
    bool same = text != NULL && strcmp(text, key) == 0;
    free(text);
    return same;
}

uint32_t json_get(const struct json *json, uint32_t object, const char *key)
{
    uint32_t found = 0;
    if (!json_is(json, object, JSON_OBJECT))
        return 0;
    for (uint32_t i = object + 1; i < json->nodes[object].next; i = json->nodes[i + 1].next)
        if (is_key(json, i, key))
            found = i + 1; /* the last of two wins, as in Python */
    return found;
}

uint32_t json_first(const struct json *json, uint32_t array)
{
    return json_is(json, array, JSON_ARRAY) && array + 1 < json->nodes[array].next ? array + 1 : 0;
}

uint32_t json_next(const struct json *json, uint32_t array, uint32_t element)
{
    uint32_t next = json->nodes[element].next;
    return next < json->nodes[array].next ? next : 0;
}

uint32_t json_at(const struct json *json, uint32_t array, uint32_t index)
{
    uint32_t node = json_first(json, array);
    while (node != 0 && index-- > 0)
        node = json_next(json, array, node);
    return node;
}

static size_t put_utf8(char *out, uint32_t c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> length & 0xFF) | c);
    return length;
}

char *json_text(const struct json *json, uint32_t node)
{
    if (!json_is(json, node, JSON_STRING))
        return NULL;
    size_t from = json->nodes[node].start + 1, to = json->nodes[node].end - 1;
    char *text = malloc(to - from + 1); /* an escape is never shorter than what it means */
    size_t length = 0;
    if (text == NULL)
        return NULL;
    while (from < to) {
        uint32_t character = (unsigned char)json->text[from++];
        if (character != '\\') {
            text[length++] = (char)character;
            continue;
        }
        from += escape(json->text + from, to - from, &character);
        if (character == 0) {
            free(text);
            return NULL;
        }
        length += put_utf8(text + length, character);
    }
    text[length] = '\0';
    return text;
}

char *json_member(const struct json *json, uint32_t object, const char *key)
{
    uint32_t node = json_get(json, object, key);
    return node != 0 ? json_text(json, node) : NULL;
}

bool json_integer(const struct json *json, uint32_t node, int64_t *number)
{
    if (node == 0 || !json_is(json, node, JSON_NUMBER))
        return false;
    const char *text = json->text + json->nodes[node].start;
    size_t length = json->nodes[node].end - json->nodes[node].start;
    if (memchr(text, '.', length) || memchr(text, 'e', length) || memchr(text, 'E', length))
        return false;
    char *end; /* what follows a value is no digit, and the file's text ends with a NUL */
    *number = strtoimax(text, &end, 10);
    return end == text + length;
}

void json_quote(FILE *out, const char *text)
{
    size_t left = strlen(text);
    fputc('"', out);
    while (left > 0) {
        unsigned char c = (unsigned char)*text;
        size_t length = utf8_length((const unsigned char *)text, left);
        if (length == 0)
            fputc('?', out);
        else if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c < 0x20)
            fprintf(out, "\\u%04x", c);
        else
            fprintf(out, "%.*s", (int)length, text);
        length = length ? length : 1;
        text += length;
        left -= length;
    }
    fputc('"', out);
}

void json_echo(FILE *out, const struct json *json, uint32_t node)
{
    const struct json_node *own = &json->nodes[node];
    bool object = own->kind == JSON_OBJECT;
    if (own->kind == JSON_STRING) {
        char *text = json_text(json, node);
        json_quote(out, text ? text : "(a NUL byte)");
        free(text);
        return;
    }
    if (!object && own->kind != JSON_ARRAY) {
        fwrite(json->text + own->start, 1, own->end - own->start, out);
        return;
    }
    fputc(object ? '{' : '[', out);
    bool name = true;
    for (uint32_t i = node + 1; i < own->next; i = json->nodes[i].next, name = !name) {
        if (i > node + 1)
            fputc(object && !name ? ':' : ',', out);
        json_echo(out, json, i);
    }
    fputc(object ? '}' : ']', out);
}
