/* An exact set of texts of up to 255 bytes. */

#ifndef BULKJOBS_TEXTS_H
#define BULKJOBS_TEXTS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint64_t *table; /* 24 bits of the hash, 40 bits of the text's position plus one; 0 is a free place */
    size_t places;   /* a power of two */
    size_t used;
    uint8_t **blocks; /* the texts, each after its length; NULL for a block that is in the file */
    size_t block_count;
    size_t block_room;
    size_t filled;    /* bytes of the last block */
    size_t bytes;     /* of everything, also in the file */
    int file;         /* takes the blocks that are full; -1 if there is none */
    int file_full;    /* it takes no more */
    int trouble;      /* what the system says of the file if it could not be read */
    uint8_t *scratch; /* a block that was read from it */
} Texts;

/* All that can fail give -1 when memory ran out, or when the file cannot be read: then `trouble` is not 0. The set still
   holds what it held. */

/* Makes an empty set, which owns the file from then on; -1 for none. */
int texts_init(Texts *set, int file);
void texts_free(Texts *set);

uint64_t texts_hash(const uint8_t *text, size_t length);

/* Brings the place of a text into the cache, some time before the text is taken in. */
void texts_fetch(const Texts *set, uint64_t hash);

/* Takes a text in; 1 if it is new, 0 if it was there. */
int texts_add(Texts *set, const uint8_t *text, size_t length, uint64_t hash);

/* Gives block `block` as it is kept, for texts_load, until the next is asked for; NULL if it fails. */
const uint8_t *texts_block(Texts *set, size_t block, size_t *length);

/* Takes in the texts of a block; -2 if it is none. */
int texts_load(Texts *set, const uint8_t *data, size_t length);

#endif
