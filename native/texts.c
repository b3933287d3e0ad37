/* An exact set of texts of up to 255 bytes.

   The texts stand one after another in blocks; a hash table holds, for each, a part of its hash and where it stands.
   Only texts with the same part of the hash are compared, and with 24 bits of it few are that are not the same. So a
   block that is full may go to a file: to take in a text that is new reads nothing of it, and one that was there costs a
   read. A file that takes no more is no trouble, the blocks then stay in memory. Nothing is ever taken out. */

#define _DEFAULT_SOURCE /* madvise */
#define _POSIX_C_SOURCE 200809L
#define _FILE_OFFSET_BITS 64

#include "texts.h"

#include "fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BLOCK_BYTES ((size_t)1 << 20)
#define POSITION_BITS 40
#define POSITION_MASK (((uint64_t)1 << POSITION_BITS) - 1)
#define FEWEST_PLACES 1024
#define HUGE_PAGE_BYTES ((size_t)1 << 21)
#define READ_AHEAD 16
#define MOST_BYTES 255

uint64_t texts_hash(const uint8_t *text, size_t length)
{
    uint64_t hash = length * 0x9E3779B97F4A7C15u, word;
    for (; length >= 8; text += 8, length -= 8) {
        memcpy(&word, text, 8);
        hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
        hash ^= hash >> 32;
    }
    word = 0;
    memcpy(&word, text, length);
    hash = (hash ^ word) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 29;
    return hash * 0x9E3779B97F4A7C15u;
}

void texts_fetch(const Texts *set, uint64_t hash)
{
    FETCH(&set->table[hash & (set->places - 1)]);
}

/* Reads from the file what was written there. */
static int read_back(Texts *set, uint8_t *data, size_t length, uint64_t position)
{
    while (length) {
        ssize_t got = pread(set->file, data, length, (off_t)position);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            set->trouble = got < 0 ? errno : EIO;
            return -1;
        }
        data += got;
        length -= (size_t)got;
        position += (uint64_t)got;
    }
    return 0;
}

/* Tells whether the text that an entry stands for is this one; -1 if it cannot be read. */
static int is_same(Texts *set, uint64_t entry, const uint8_t *text, size_t length)
{
    uint64_t position = (entry & POSITION_MASK) - 1;
    const uint8_t *block = set->blocks[position / BLOCK_BYTES], *known;
    uint8_t copy[1 + MOST_BYTES];
    size_t begin = position % BLOCK_BYTES, left = BLOCK_BYTES - begin;
    if (block)
        known = block + begin;
    else if (read_back(set, copy, length < left ? 1 + length : left, position) < 0)
        return -1;
    else
        known = copy;
    return known[0] == length && !memcmp(known + 1, text, length);
}

static uint64_t entry_of(uint64_t hash, uint64_t position)
{
    return (hash & ~POSITION_MASK) | (position + 1);
}

static void enter(uint64_t *table, size_t mask, uint64_t hash, uint64_t position)
{
    size_t at = hash & mask;
    while (table[at])
        at = (at + 1) & mask;
    table[at] = entry_of(hash, position);
}

/* Enters all texts into a table; some ahead of it, their places are fetched. */
static int enter_all(Texts *set, uint64_t *table, size_t mask)
{
    uint64_t hashes[READ_AHEAD], positions[READ_AHEAD];
    size_t count = 0;
    for (size_t block = 0; block < set->block_count; block++) {
        size_t length;
        const uint8_t *data = texts_block(set, block, &length);
        if (!data)
            return -1;
        for (size_t at = 0; at < length; at += 1 + data[at]) {
            size_t next = count++ % READ_AHEAD;
            if (count > READ_AHEAD)
                enter(table, mask, hashes[next], positions[next]);
            hashes[next] = texts_hash(data + at + 1, data[at]);
            positions[next] = block * BLOCK_BYTES + at;
            FETCH(&table[hashes[next] & mask]);
        }
    }
    for (size_t n = count < READ_AHEAD ? count : READ_AHEAD; n; n--)
        enter(table, mask, hashes[n - 1], positions[n - 1]);
    return 0;
}

/* Gives a table of free places. Each id goes to another page of a large one; in huge pages finding it takes half. */
static uint64_t *new_table(size_t places)
{
    size_t bytes = places * sizeof(uint64_t);
    if (bytes < 2 * HUGE_PAGE_BYTES)
        return calloc(places, sizeof(uint64_t));
    void *table;
    if (posix_memalign(&table, HUGE_PAGE_BYTES, bytes))
        return NULL;
#ifdef MADV_HUGEPAGE
    madvise(table, bytes, MADV_HUGEPAGE); /* a wish: without it all is as right, and slower */
#endif
    return memset(table, 0, bytes);
}

static int grow(Texts *set)
{
    size_t places = 2 * set->places;
    uint64_t *table = new_table(places);
    if (!table || enter_all(set, table, places - 1) < 0) {
        free(table);
        return -1;
    }
    free(set->table);
    set->table = table;
    set->bytes += (places - set->places) * sizeof *table;
    set->places = places;
    return 0;
}

/* Ends the last block, and writes it to the file if that takes it; gives the memory that is free then, or NULL. */
static uint8_t *put_away(Texts *set)
{
    if (!set->block_count)
        return NULL;
    size_t number = set->block_count - 1;
    uint8_t *block = set->blocks[number];
    memset(block + set->filled, 0, BLOCK_BYTES - set->filled); /* a length of zero, which no text has, marks the end */
    if (set->file < 0 || set->file_full)
        return NULL;
    for (size_t done = 0; done < BLOCK_BYTES;) {
        ssize_t put = pwrite(set->file, block + done, BLOCK_BYTES - done, (off_t)(number * BLOCK_BYTES + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            set->file_full = 1;
            return NULL;
        }
        done += (size_t)put;
    }
    set->blocks[number] = NULL;
    return block;
}

static int open_block(Texts *set)
{
    if (set->block_count == set->block_room) {
        size_t room = set->block_room ? 2 * set->block_room : 64;
        uint8_t **blocks = realloc(set->blocks, room * sizeof *blocks);
        if (!blocks)
            return -1;
        set->bytes += (room - set->block_room) * sizeof *blocks;
        set->blocks = blocks;
        set->block_room = room;
    }
    uint8_t *block = put_away(set);
    if (!block && !(block = malloc(BLOCK_BYTES)))
        return -1;
    set->blocks[set->block_count++] = block;
    set->filled = 0;
    set->bytes += BLOCK_BYTES;
    return 0;
}

int texts_add(Texts *set, const uint8_t *text, size_t length, uint64_t hash)
{
    if (4 * (set->used + 1) > 3 * set->places && grow(set) < 0)
        return -1;
    size_t mask = set->places - 1, at = hash & mask;
    for (; set->table[at]; at = (at + 1) & mask) {
        if ((set->table[at] ^ hash) & ~POSITION_MASK)
            continue;
        int same = is_same(set, set->table[at], text, length);
        if (same)
            return same < 0 ? -1 : 0;
    }
    if ((!set->block_count || set->filled + 1 + length > BLOCK_BYTES) && open_block(set) < 0)
        return -1;
    uint8_t *room = set->blocks[set->block_count - 1] + set->filled;
    room[0] = (uint8_t)length;
    memcpy(room + 1, text, length);
    set->table[at] = entry_of(hash, (set->block_count - 1) * BLOCK_BYTES + set->filled);
    set->filled += 1 + length;
    set->used++;
    return 1;
}

int texts_init(Texts *set, int file)
{
    memset(set, 0, sizeof *set);
    set->table = calloc(FEWEST_PLACES, sizeof *set->table);
    if (!set->table)
        return -1;
    set->file = file;
    set->places = FEWEST_PLACES;
    set->bytes = FEWEST_PLACES * sizeof *set->table;
    return 0;
}

void texts_free(Texts *set)
{
    for (size_t block = 0; block < set->block_count; block++)
        free(set->blocks[block]);
    if (set->table && set->file >= 0)
        close(set->file);
    free(set->blocks);
    free(set->scratch);
    free(set->table);
    memset(set, 0, sizeof *set);
}

const uint8_t *texts_block(Texts *set, size_t block, size_t *length)
{
    const uint8_t *data = set->blocks[block];
    if (!data) {
        if (!set->scratch && !(set->scratch = malloc(BLOCK_BYTES)))
            return NULL;
        if (read_back(set, set->scratch, BLOCK_BYTES, (uint64_t)block * BLOCK_BYTES) < 0)
            return NULL;
        data = set->scratch;
    }
    size_t end = 0;
    if (block + 1 == set->block_count)
        end = set->filled;
    else
        while (end < BLOCK_BYTES && data[end])
            end += 1 + data[end];
    *length = end;
    return data;
}

int texts_load(Texts *set, const uint8_t *data, size_t length)
{
    while (length) {
        size_t text = data[0];
        if (!text || text >= length)
            return -2;
        if (texts_add(set, data + 1, text, texts_hash(data + 1, text)) < 0)
            return -1;
        data += 1 + text;
        length -= 1 + text;
    }
    return 0;
}
