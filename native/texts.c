/* An exact set of texts of up to 255 bytes.

   The texts stand one after another in blocks that never move; a hash table holds, for each, a part of its hash and
   where it stands. Only texts with the same part of the hash are compared. Nothing is ever taken out. */

#include "texts.h"

#include "fetch.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)1 << 20)
#define POSITION_BITS 40
#define POSITION_MASK (((uint64_t)1 << POSITION_BITS) - 1)
#define FEWEST_PLACES 1024
#define READ_AHEAD 16

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

static const uint8_t *text_at(const Texts *set, uint64_t entry)
{
    uint64_t position = (entry & POSITION_MASK) - 1;
    return set->blocks[position / BLOCK_BYTES] + position % BLOCK_BYTES;
}

static uint64_t entry_of(uint64_t hash, uint64_t position)
{
    return (hash & ~POSITION_MASK) | (position + 1);
}

static void enter(Texts *set, uint64_t hash, uint64_t position)
{
    size_t mask = set->places - 1, at = hash & mask;
    while (set->table[at])
        at = (at + 1) & mask;
    set->table[at] = entry_of(hash, position);
}

static int grow(Texts *set)
{
    size_t places = 2 * set->places;
    uint64_t *table = calloc(places, sizeof *table);
    if (!table)
        return -1;
    free(set->table);
    set->table = table;
    set->bytes += (places - set->places) * sizeof *table;
    set->places = places;
    uint64_t hashes[READ_AHEAD], positions[READ_AHEAD];
    size_t count = 0;
    for (size_t block = 0; block < set->block_count; block++) {
        size_t length;
        const uint8_t *data = texts_block(set, block, &length);
        for (size_t at = 0; at < length; at += 1 + data[at]) {
            size_t next = count++ % READ_AHEAD;
            if (count > READ_AHEAD)
                enter(set, hashes[next], positions[next]);
            hashes[next] = texts_hash(data + at + 1, data[at]);
            positions[next] = block * BLOCK_BYTES + at;
            texts_fetch(set, hashes[next]);
        }
    }
    for (size_t n = count < READ_AHEAD ? count : READ_AHEAD; n; n--)
        enter(set, hashes[n - 1], positions[n - 1]);
    return 0;
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
    uint8_t *block = malloc(BLOCK_BYTES);
    if (!block)
        return -1;
    if (set->block_count) /* the end of the one before is marked by a length of zero, which no text has */
        memset(set->blocks[set->block_count - 1] + set->filled, 0, BLOCK_BYTES - set->filled);
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
        const uint8_t *known = text_at(set, set->table[at]);
        if (known[0] == length && !memcmp(known + 1, text, length))
            return 0;
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

int texts_init(Texts *set)
{
    memset(set, 0, sizeof *set);
    set->table = calloc(FEWEST_PLACES, sizeof *set->table);
    if (!set->table)
        return -1;
    set->places = FEWEST_PLACES;
    set->bytes = FEWEST_PLACES * sizeof *set->table;
    return 0;
}

void texts_free(Texts *set)
{
    for (size_t block = 0; block < set->block_count; block++)
        free(set->blocks[block]);
    free(set->blocks);
    free(set->table);
    memset(set, 0, sizeof *set);
}

const uint8_t *texts_block(const Texts *set, size_t block, size_t *length)
{
    const uint8_t *data = set->blocks[block];
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
