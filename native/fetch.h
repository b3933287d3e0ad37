/* Brings what stands at an address into the cache, without waiting for it. */

#ifndef BULKJOBS_FETCH_H
#define BULKJOBS_FETCH_H

#ifdef __GNUC__
#define FETCH(address) __builtin_prefetch(address)
#else
#define FETCH(address) ((void)(address))
#endif

#endif
