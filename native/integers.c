/* An exact set of integers below 2**64, compact where they lie close together.

   The upper 48 bits of a value are the number of its page. A hash table leads from there to what the page holds, in one
   of three forms, told by the lowest bits of a word:

   1 to 3  so many values, each with its 16 lower bits, stand in the word itself;
   0       the word points to a Cell, a small hash table of 16-bit values;
   4       the word points, but for this bit, to a bitmap of all 65,536.

   So an id costs two bits to a byte where ids are dense, two to six bytes where one in a hundred is there, and about
   thirty where each has a page of its own. Nothing is ever taken out. */

#include "integers.h"

#include "fetch.h"

#include <stdlib.h>
#include <string.h>

#define INLINE 3
#define BITMAP 4 /* what malloc gives is aligned to sixteen bytes, or eight at least */
#define FEWEST_PAGES 1024
#define FEWEST_IN_CELL 16
#define MOST_IN_CELL 2048 /* with more, a bitmap is no larger */
#define BITMAP_WORDS 1024
#define BITMAP_BYTES (BITMAP_WORDS * sizeof(uint64_t))
#define DUMPED_BITMAP 0xFFFFFFFFu

typedef struct {
    uint64_t has_zero;
    uint32_t places; /* a power of two; so many values stand behind this head, 0 is a free place */
    uint32_t count;  /* without a zero */
} Cell;

static uint16_t *values_of(const Cell *cell)
{
    return (uint16_t *)(cell + 1);
}

static Cell *cell_of(uint64_t held)
{
    return (Cell *)(uintptr_t)held;
}

static uint64_t *bits_of(uint64_t held)
{
    return (uint64_t *)(uintptr_t)(held & ~(uint64_t)BITMAP);
}

static uint16_t inline_value(uint64_t held, unsigned n)
{
    return (uint16_t)(held >> (16 * n + 16));
}

static int holds_bitmap(const Page *page)
{
    return (page->held & (INLINE | BITMAP)) == BITMAP;
}

static size_t bytes_of(uint64_t held)
{
    if (!held || held & INLINE)
        return 0;
    return held & BITMAP ? BITMAP_BYTES : sizeof(Cell) + cell_of(held)->places * sizeof(uint16_t);
}

static void release(Integers *set, uint64_t held)
{
    set->bytes -= bytes_of(held);
    if (!(held & INLINE))
        free(bits_of(held));
}

/* What a page holds */

/* These take a value in; 1 if it is new. */

static int bitmap_put(uint64_t *bits, uint16_t value)
{
    uint64_t bit = (uint64_t)1 << (value & 63), before = bits[value >> 6];
    bits[value >> 6] = before | bit;
    return !(before & bit);
}

static int cell_put(Cell *cell, uint16_t value)
{
    if (!value) {
        int fresh = !cell->has_zero;
        cell->has_zero = 1;
        return fresh;
    }
    uint16_t *values = values_of(cell);
    uint32_t mask = cell->places - 1;
    uint32_t at = ((uint32_t)value * 0x9E3779B1u >> 16) & mask;
    while (values[at]) {
        if (values[at] == value)
            return 0;
        at = (at + 1) & mask;
    }
    values[at] = value;
    cell->count++;
    return 1;
}

/* Writes the values of a page that holds no bitmap into a row of at most MOST_IN_CELL + 1; gives how many. */
static uint32_t list(uint64_t held, uint16_t *row)
{
    uint32_t count = 0;
    if (held & INLINE) {
        for (; count < (held & INLINE); count++)
            row[count] = inline_value(held, count);
    } else if (held) {
        const Cell *cell = cell_of(held);
        if (cell->has_zero)
            row[count++] = 0;
        for (uint32_t at = 0; at < cell->places; at++)
            if (values_of(cell)[at])
                row[count++] = values_of(cell)[at];
    }
    return count;
}

/* Gives a page a cell with so many places, or a bitmap if 0, and moves there what it holds. */
static int recast(Integers *set, Page *page, uint32_t places)
{
    void *moved = calloc(1, places ? sizeof(Cell) + places * sizeof(uint16_t) : BITMAP_BYTES);
    if (!moved)
        return -1;
    uint64_t held = (uint64_t)(uintptr_t)moved;
    uint16_t row[MOST_IN_CELL + 1];
    uint32_t count = list(page->held, row);
    if (places)
        cell_of(held)->places = places;
    for (uint32_t n = 0; n < count; n++) {
        if (places)
            cell_put(moved, row[n]);
        else
            bitmap_put(moved, row[n]);
    }
    release(set, page->held);
    page->held = places ? held : held | BITMAP;
    set->bytes += bytes_of(page->held);
    return 0;
}

/* Takes a value into a page with few values; 1 if it is new. */
static int put_sparse(Integers *set, Page *page, uint16_t value)
{
    unsigned count = page->held & INLINE;
    if (count || !page->held) {
        for (unsigned n = 0; n < count; n++)
            if (inline_value(page->held, n) == value)
                return 0;
        if (count < INLINE) {
            page->held = (page->held + 1) | (uint64_t)value << (16 * count + 16);
            return 1;
        }
        if (recast(set, page, FEWEST_IN_CELL) < 0)
            return -1;
    }
    Cell *cell = cell_of(page->held);
    if (!cell_put(cell, value))
        return 0;
    /* Room is made for the next one, so that one is always there. */
    if (4 * (cell->count + 1) > 3 * cell->places)
        if (recast(set, page, cell->places < MOST_IN_CELL ? 2 * cell->places : 0) < 0)
            return -1;
    return 1;
}

/* Pages */

static size_t first_place(const Integers *set, uint64_t number)
{
    uint64_t spread = number * 0x9E3779B97F4A7C15u; /* 2**64 over the golden ratio */
    return (spread ^ (spread >> 32)) & (set->places - 1);
}

static Page *page_of(const Integers *set, uint64_t number)
{
    size_t mask = set->places - 1, at = first_place(set, number);
    while (set->pages[at].number && set->pages[at].number != number + 1)
        at = (at + 1) & mask;
    return &set->pages[at];
}

static int allocate(Integers *set, size_t places)
{
    Page *pages = calloc(places, sizeof *pages);
    if (!pages)
        return -1;
    set->pages = pages;
    set->places = places;
    set->bytes += places * sizeof *pages;
    return 0;
}

static int grow(Integers *set)
{
    Page *old = set->pages;
    size_t places = set->places;
    if (allocate(set, 2 * places) < 0)
        return -1;
    for (size_t at = 0; at < places; at++)
        if (old[at].number)
            *page_of(set, old[at].number - 1) = old[at];
    set->bytes -= places * sizeof *old;
    free(old);
    return 0;
}

/* Gives a page, a new one if there is none; NULL without memory. */
static Page *claim(Integers *set, uint64_t number)
{
    Page *page = page_of(set, number);
    if (page->number)
        return page;
    if (4 * (set->used + 1) > 3 * set->places) {
        if (grow(set) < 0)
            return NULL;
        page = page_of(set, number);
    }
    page->number = number + 1;
    set->used++;
    return page;
}

int integers_add(Integers *set, uint64_t value)
{
    Page *page = page_of(set, value >> 16);
    if (holds_bitmap(page))
        return bitmap_put(bits_of(page->held), (uint16_t)value);
    page = claim(set, value >> 16);
    return page ? put_sparse(set, page, (uint16_t)value) : -1;
}

void integers_fetch_page(const Integers *set, uint64_t value)
{
    FETCH(&set->pages[first_place(set, value >> 16)]);
}

void integers_fetch_held(const Integers *set, uint64_t value)
{
    const Page *page = &set->pages[first_place(set, value >> 16)];
    if (holds_bitmap(page))
        FETCH(&bits_of(page->held)[(uint16_t)value >> 6]);
    else if (!(page->held & INLINE))
        FETCH(bits_of(page->held));
}

int integers_init(Integers *set)
{
    memset(set, 0, sizeof *set);
    return allocate(set, FEWEST_PAGES);
}

void integers_free(Integers *set)
{
    for (size_t at = 0; at < set->places; at++)
        release(set, set->pages[at].held);
    free(set->pages);
    memset(set, 0, sizeof *set);
}

/* Out and in again. Of each page: its number, how many values or DUMPED_BITMAP, and these or the bitmap. */

static size_t dump_page(const Page *page, uint8_t *out)
{
    uint16_t row[MOST_IN_CELL + 1];
    uint64_t number = page->number - 1;
    uint32_t count = holds_bitmap(page) ? DUMPED_BITMAP : list(page->held, row);
    size_t length = holds_bitmap(page) ? BITMAP_BYTES : count * sizeof *row;
    memcpy(out, &number, 8);
    memcpy(out + 8, &count, 4);
    memcpy(out + 12, holds_bitmap(page) ? (const void *)bits_of(page->held) : (const void *)row, length);
    return 12 + length;
}

size_t integers_dump(const Integers *set, size_t *place, uint8_t *out, size_t room)
{
    size_t length = 0;
    for (; *place < set->places && room - length >= INTEGERS_DUMP_ROOM; ++*place)
        if (set->pages[*place].number)
            length += dump_page(&set->pages[*place], out + length);
    return length;
}

static int load_bitmap(Integers *set, uint64_t number, const uint8_t *data)
{
    Page *page = claim(set, number);
    if (!page || recast(set, page, 0) < 0)
        return -1;
    memcpy(bits_of(page->held), data, BITMAP_BYTES);
    return 0;
}

int integers_load(Integers *set, const uint8_t *data, size_t length)
{
    while (length) {
        uint64_t number;
        uint32_t count;
        if (length < 12)
            return -2;
        memcpy(&number, data, 8);
        memcpy(&count, data + 8, 4);
        data += 12;
        length -= 12;
        size_t stored = count == DUMPED_BITMAP ? BITMAP_BYTES : (size_t)count * sizeof(uint16_t);
        if (stored > length || number >> 48)
            return -2;
        if (count == DUMPED_BITMAP) {
            if (load_bitmap(set, number, data) < 0)
                return -1;
        } else {
            for (uint32_t n = 0; n < count; n++) {
                uint16_t value;
                memcpy(&value, data + 2 * n, 2);
                if (integers_add(set, number << 16 | value) < 0)
                    return -1;
            }
        }
        data += stored;
        length -= stored;
    }
    return 0;
}
