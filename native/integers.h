/* An exact set of integers below 2**64, compact where they lie close together. */

#ifndef BULKJOBS_INTEGERS_H
#define BULKJOBS_INTEGERS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t number; /* plus one; 0 is a free place */
    uint64_t held;   /* see integers.c */
} Page;

typedef struct {
    Page *pages;
    size_t places; /* a power of two */
    size_t used;
    size_t bytes; /* of everything that was allocated */
} Integers;

/* All of these give 0, or -1 when memory ran out; the set then still holds what it held. */

int integers_init(Integers *set);
void integers_free(Integers *set);

/* Takes a value in; 1 if it is new, 0 if it was there. */
int integers_add(Integers *set, uint64_t value);

/* Fetches what integers_add will look at into the cache: first the page, then, when that has come, what it holds. With
   a set larger than the cache this halves the time of an integers_add, which otherwise waits for memory. */
void integers_fetch_page(const Integers *set, uint64_t value);
void integers_fetch_held(const Integers *set, uint64_t value);

/* Writes whole pages from place `*place` on into `out`, which has room for at least INTEGERS_DUMP_ROOM bytes, and moves
   `*place` on; at the end it equals `places`. Gives the number of bytes. */
#define INTEGERS_DUMP_ROOM (16 + 8192)
size_t integers_dump(const Integers *set, size_t *place, uint8_t *out, size_t room);

/* Takes in, into a set that has none of these pages, what integers_dump wrote; -2 if it is not that. */
int integers_load(Integers *set, const uint8_t *data, size_t length);

#endif
