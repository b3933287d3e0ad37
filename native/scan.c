/* Cuts text into ids and ids into chunks: the part of chunking.py that looks at every byte.

   A Scanner takes whole tokens, drops blank and duplicate ones, gathers the ids that stay, and gives the positions of
   those that are no ids; what is wrong with them is told in ids.py. The GIL is released while it works, so that answers
   are read and chunks are sent meanwhile.

   Text is bytes of which newline and comma separate tokens, a carriage return before a newline belongs to it, and blanks
   (space and tab) around a token are no part of it. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "integers.h"
#include "texts.h"

#define MOST_DIGITS 19    /* always below 2**64 */
#define SHORTEST_TEXT 32  /* of an opaque id */
#define LONGEST_TEXT (2 * SHORTEST_TEXT)
#define EACH_BYTE 0x0101010101010101u
#define READ_AHEAD 32
#define COPIED_AT_ONCE 24 /* an integer id and a byte more, rounded up: a copy of fixed length is one of two moves */
#define DUMPED_AT_ONCE ((size_t)1 << 20)

typedef struct {
    Py_ssize_t end; /* of its ids in the output, behind the newline of the last one */
    Py_ssize_t source;
    Py_ssize_t line;
    Py_ssize_t ids;
    Py_ssize_t invalid;
    Py_ssize_t duplicate;
} Piece;

typedef struct {
    Py_ssize_t line;
    Py_ssize_t start;
    Py_ssize_t length;
} Fault;

typedef struct {
    const uint8_t *start;
    size_t length;
    uint64_t value;
    int lines; /* that end behind it: 0 or 1 */
} Integer;

typedef struct {
    const uint8_t *start;
    size_t length;
    uint64_t hash;
} Text;

typedef struct {
    PyObject_HEAD
    Py_ssize_t size;
    int dedupe;
    int opaque;
    int busy;
    Integers integers;
    Texts texts;
    Py_ssize_t line; /* on which the next token stands */
    Py_ssize_t source;
    Piece filling; /* its `end` is how much of the output is filled */
    Piece closed;  /* sums over all chunks that became full */
    uint8_t *out;
    size_t out_room;
    Piece *pieces;
    size_t piece_count, piece_room;
    Fault *faults;
    size_t fault_count, fault_room;
} Scanner;

/* Scanning */

static int is_blank(uint8_t byte)
{
    return byte == ' ' || byte == '\t';
}

static int is_separator(uint8_t byte)
{
    return byte == '\n' || byte == ',';
}

/* Makes room for one more item in an array. */
static int reserve(void **items, size_t count, size_t *room, size_t item_bytes)
{
    if (count < *room)
        return 0;
    size_t wanted = *room ? 2 * *room : 64;
    void *moved = realloc(*items, wanted * item_bytes);
    if (!moved)
        return -1;
    *items = moved;
    *room = wanted;
    return 0;
}

static int add_fault(Scanner *self, const uint8_t *text, const uint8_t *start, const uint8_t *end)
{
    if (reserve((void **)&self->faults, self->fault_count, &self->fault_room, sizeof(Fault)) < 0)
        return -1;
    self->faults[self->fault_count++] = (Fault){self->line, start - text, end - start};
    self->filling.invalid++;
    return 0;
}

/* Counts ids that were just written behind the output, and closes the chunk when it is full. */
static int count_in(Scanner *self, Py_ssize_t ids, Py_ssize_t length)
{
    Piece *filling = &self->filling;
    if (!filling->ids) {
        filling->source = self->source;
        filling->line = self->line;
    }
    filling->end += length;
    filling->ids += ids;
    if (filling->ids < self->size)
        return 0;
    if (reserve((void **)&self->pieces, self->piece_count, &self->piece_room, sizeof(Piece)) < 0)
        return -1;
    self->pieces[self->piece_count++] = *filling;
    self->closed.ids += filling->ids;
    self->closed.invalid += filling->invalid;
    self->closed.duplicate += filling->duplicate;
    *filling = (Piece){.end = filling->end};
    return 0;
}

/* Keeps the id that was just written behind the output. */
static int keep(Scanner *self, size_t length)
{
    self->out[self->filling.end + (Py_ssize_t)length] = '\n';
    return count_in(self, 1, (Py_ssize_t)length + 1);
}

static int take_integer(Scanner *self, const Integer *id, const uint8_t *end)
{
    if (self->dedupe) {
        int fresh = integers_add(&self->integers, id->value);
        if (fresh < 0)
            return -1;
        if (!fresh) {
            self->filling.duplicate++;
            return 0;
        }
    }
    uint8_t *out = self->out + self->filling.end;
    if (end - id->start >= COPIED_AT_ONCE)
        memcpy(out, id->start, COPIED_AT_ONCE);
    else
        memcpy(out, id->start, id->length);
    return keep(self, id->length);
}

static int take_text(Scanner *self, const Text *id)
{
    if (self->dedupe) {
        int fresh = texts_add(&self->texts, id->start, id->length, id->hash);
        if (fresh < 0)
            return -1;
        if (!fresh) {
            self->filling.duplicate++;
            return 0;
        }
    }
    memcpy(self->out + self->filling.end, id->start, id->length);
    return keep(self, id->length);
}

/* Reads digits. The sum wraps where there are more of them than an id has. (Eight at once measured no faster: the next
   id would wait for the end of this one, which a loop lets the processor guess.) */
static const uint8_t *read_digits(const uint8_t *at, uint64_t *value)
{
    uint64_t sum = 0;
    for (uint8_t digit; (digit = (uint8_t)(*at - '0')) <= 9; at++)
        sum = 10 * sum + digit;
    *value = sum;
    return at;
}

/* Says of the 8 bytes of a word, each in its highest bit, whether they lie in a range below 128; of bytes from 128 on
   what it says means nothing. */
static uint64_t in_range(uint64_t word, uint8_t first, uint8_t last)
{
    return (word + EACH_BYTE * (128u - first)) & ~(word + EACH_BYTE * (127u - last));
}

/* Says so of letters, digits, `_` and `-`. Eight at once: one by one they took two thirds of all the time. */
static uint64_t of_opaque_ids(const uint8_t *text)
{
    uint64_t word;
    memcpy(&word, text, 8);
    return (in_range(word | EACH_BYTE * 32, 'a', 'z') | in_range(word, '0', '9') | in_range(word, '_', '_') |
            in_range(word, '-', '-')) & ~word;
}

/* Tells whether a text is an opaque id: its beginning and its end, of the shortest length each, are all of it. */
static int is_opaque_id(const uint8_t *text, size_t length)
{
    if (length < SHORTEST_TEXT || length > LONGEST_TEXT)
        return 0;
    const uint8_t *rest = text + length - SHORTEST_TEXT;
    uint64_t good = EACH_BYTE * 128;
    for (size_t n = 0; n < SHORTEST_TEXT; n += 8)
        good &= of_opaque_ids(text + n) & of_opaque_ids(rest + n);
    return good == EACH_BYTE * 128;
}

/* Takes the token that begins at `start`, whatever it holds; gives where the next begins, NULL without memory. */
static const uint8_t *take_any(Scanner *self, const uint8_t *text, const uint8_t *start, const uint8_t *end)
{
    const uint8_t *separator = start;
    while (!is_separator(*separator))
        separator++;
    const uint8_t *stop = separator;
    if (*separator == '\n' && stop > start && stop[-1] == '\r')
        stop--;
    while (stop > start && is_blank(stop[-1]))
        stop--;
    while (stop > start && is_blank(*start))
        start++;
    int failed = 0;
    if (stop > start) {
        size_t length = (size_t)(stop - start);
        Integer integer = {.start = start, .length = length};
        if (self->opaque && is_opaque_id(start, length))
            failed = take_text(self, &(Text){start, length, texts_hash(start, length)}) < 0;
        else if (!self->opaque && *start != '0' && length <= MOST_DIGITS && read_digits(start, &integer.value) == stop)
            failed = take_integer(self, &integer, end) < 0;
        else
            failed = add_fault(self, text, start, stop) < 0;
    }
    self->line += *separator == '\n';
    return failed ? NULL : separator + 1;
}

/* Reads up to READ_AHEAD clean ids into a row; gives where they end. */
static const uint8_t *read_integers(Scanner *self, const uint8_t *at, const uint8_t *end, Integer *row, size_t *count)
{
    for (*count = 0; at < end && *count < READ_AHEAD; ++*count) {
        Integer *id = &row[*count];
        id->start = at + (*at == ' '); /* as people write lists: after each comma */
        const uint8_t *stop = read_digits(id->start, &id->value);
        const uint8_t *separator = stop + (*stop == '\r' && stop[1] == '\n');
        id->length = (size_t)(stop - id->start);
        id->lines = *separator == '\n';
        if (!is_separator(*separator) || id->length - 1 >= MOST_DIGITS || *id->start == '0')
            break;
        if (self->dedupe)
            integers_fetch_page(&self->integers, id->value);
        at = separator + 1;
    }
    return at;
}

/* Eight bytes at a time: the functions below work on bytes of a word that are ASCII, and answer with the top bit of each. */

#define IN_EACH(byte) (UINT64_C(0x0101010101010101) * (byte))
#define TOPS IN_EACH(0x80)

static uint64_t word_at(const uint8_t *at)
{
    uint64_t word = 0;
    for (int n = 0; n < 8; n++) /* compilers make one load of it */
        word |= (uint64_t)at[n] << 8 * n;
    return word;
}

static uint64_t equal_to(uint64_t word, uint8_t byte)
{
    return ~((word ^ IN_EACH(byte)) + IN_EACH(0x7F)) & TOPS;
}

static uint64_t not_below(uint64_t word, uint8_t byte)
{
    return (word + IN_EACH(0x80 - byte)) & TOPS;
}

/* Gives where the lines at the beginning of a text end that hold nothing but a clean id, and how many these are, up to
   `most`; it may stop some lines early. No id has to be read, so that this takes a tenth of the time of reading them. */
static const uint8_t *clean_lines(const uint8_t *at, const uint8_t *end, Py_ssize_t most, Py_ssize_t *lines)
{
    const uint8_t *stop = at;
    uint64_t begins = 0x80; /* the first byte is the first of a line */
    unsigned digits = 0;    /* of the line that goes on */
    *lines = 0;
    for (; end - at >= 8; at += 8) {
        uint64_t word = word_at(at);
        uint64_t newlines = equal_to(word, '\n');
        uint64_t clean = newlines | (not_below(word, '0') & ~not_below(word, '9' + 1));
        begins |= newlines << 8;
        if (word & TOPS || clean != TOPS || (begins & (newlines | equal_to(word, '0'))))
            break;
        begins = newlines >> 56;
        if (!newlines) {
            if ((digits += 8) > MOST_DIGITS)
                break;
            continue;
        }
        if (digits + (unsigned)__builtin_ctzll(newlines) / 8 > MOST_DIGITS)
            break;
        Py_ssize_t more = (Py_ssize_t)(((newlines >> 7) * IN_EACH(1)) >> 56);
        for (; more > most - *lines; more--)
            newlines &= ~(UINT64_C(1) << (63 - __builtin_clzll(newlines)));
        digits = (unsigned)__builtin_clzll(newlines) / 8;
        stop = at + 8 - digits;
        *lines += more;
        if (*lines == most)
            break;
    }
    return stop;
}

/* Takes clean lines as they are; gives where they end, NULL without memory. */
static const uint8_t *take_lines(Scanner *self, const uint8_t *at, const uint8_t *end)
{
    for (;;) {
        Py_ssize_t lines;
        const uint8_t *stop = clean_lines(at, end, self->size - self->filling.ids, &lines);
        if (stop == at)
            return at;
        memcpy(self->out + self->filling.end, at, (size_t)(stop - at));
        if (count_in(self, lines, stop - at) < 0)
            return NULL;
        self->line += lines;
        at = stop;
    }
}

static int scan_integers(Scanner *self, const uint8_t *text, const uint8_t *at, const uint8_t *end)
{
    Integer row[READ_AHEAD];
    while (at < end) {
        size_t count;
        if (!self->dedupe && !(at = take_lines(self, at, end)))
            return -1;
        at = read_integers(self, at, end, row, &count);
        if (self->dedupe)
            for (size_t n = 0; n < count; n++)
                integers_fetch_held(&self->integers, row[n].value);
        for (size_t n = 0; n < count; n++) {
            if (take_integer(self, &row[n], end) < 0)
                return -1;
            self->line += row[n].lines;
        }
        if (count < READ_AHEAD && at < end && !(at = take_any(self, text, at, end)))
            return -1;
    }
    return 0;
}

/* Reads up to READ_AHEAD opaque ids, one a line, into a row; gives where they end. */
static const uint8_t *read_texts(Scanner *self, const uint8_t *at, const uint8_t *end, Text *row, size_t *count)
{
    for (*count = 0; at < end && *count < READ_AHEAD; ++*count) {
        size_t most = end - at < LONGEST_TEXT + 1 ? (size_t)(end - at) : LONGEST_TEXT + 1; /* the next may be far */
        const uint8_t *newline = memchr(at, '\n', most);
        if (!newline || !is_opaque_id(at, (size_t)(newline - at)))
            break;
        Text *id = &row[*count];
        *id = (Text){.start = at, .length = (size_t)(newline - at)};
        if (self->dedupe) {
            id->hash = texts_hash(id->start, id->length);
            texts_fetch(&self->texts, id->hash);
        }
        at = newline + 1;
    }
    return at;
}

static int scan_texts(Scanner *self, const uint8_t *text, const uint8_t *at, const uint8_t *end)
{
    Text row[READ_AHEAD];
    while (at < end) {
        size_t count;
        at = read_texts(self, at, end, row, &count);
        for (size_t n = 0; n < count; n++, self->line++)
            if (take_text(self, &row[n]) < 0)
                return -1;
        if (count < READ_AHEAD && at < end && !(at = take_any(self, text, at, end)))
            return -1;
    }
    return 0;
}

/* Makes room for what a text of this length can add to the output. */
static int make_room(Scanner *self, size_t length)
{
    size_t wanted = (size_t)self->filling.end + length + COPIED_AT_ONCE;
    if (wanted <= self->out_room)
        return 0;
    uint8_t *out = realloc(self->out, wanted);
    if (!out)
        return -1;
    self->out = out;
    self->out_room = wanted;
    return 0;
}

static int scan(Scanner *self, const uint8_t *text, const uint8_t *at, const uint8_t *end)
{
    self->piece_count = self->fault_count = 0;
    if (make_room(self, (size_t)(end - at)) < 0)
        return -1;
    return self->opaque ? scan_texts(self, text, at, end) : scan_integers(self, text, at, end);
}

/* What Python sees */

static PyObject *piece_as_tuple(const Scanner *self, const Piece *piece, Py_ssize_t begin)
{
    return Py_BuildValue("(y#nnnnn)", (const char *)self->out + begin, piece->end - begin - 1, piece->ids, piece->source,
                         piece->line, piece->invalid, piece->duplicate);
}

/* Gives what a scan found, and moves the ids of the chunk that is being filled to the beginning of the output. */
static PyObject *found(Scanner *self)
{
    Py_ssize_t begin = 0;
    PyObject *pieces = PyList_New((Py_ssize_t)self->piece_count);
    PyObject *faults = PyList_New((Py_ssize_t)self->fault_count);
    if (!pieces || !faults)
        goto failed;
    for (size_t n = 0; n < self->piece_count; n++) {
        PyObject *piece = piece_as_tuple(self, &self->pieces[n], begin);
        if (!piece || PyList_SetItem(pieces, (Py_ssize_t)n, piece) < 0)
            goto failed;
        begin = self->pieces[n].end;
    }
    for (size_t n = 0; n < self->fault_count; n++) {
        const Fault *one = &self->faults[n];
        PyObject *fault = Py_BuildValue("(nnn)", one->line, one->start, one->length);
        if (!fault || PyList_SetItem(faults, (Py_ssize_t)n, fault) < 0)
            goto failed;
    }
    memmove(self->out, self->out + begin, (size_t)(self->filling.end - begin));
    self->filling.end -= begin;
    return Py_BuildValue("(NN)", pieces, faults);
failed:
    Py_XDECREF(pieces);
    Py_XDECREF(faults);
    return NULL;
}

static int enter(Scanner *self)
{
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "A Scanner works for one thread at a time.");
        return -1;
    }
    self->busy = 1;
    return 0;
}

/* Says why something failed. */
static PyObject *failure(const Scanner *self)
{
    if (!self->texts.trouble)
        return PyErr_NoMemory();
    errno = self->texts.trouble;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *scanner_scan(Scanner *self, PyObject *arguments)
{
    Py_buffer text;
    Py_ssize_t start, end;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(arguments, "y*nn:scan", &text, &start, &end))
        return NULL;
    const uint8_t *data = text.buf;
    if (start < 0 || end > text.len || start > end || (end > start && !is_separator(data[end - 1]))) {
        PyErr_SetString(PyExc_ValueError, "A scan takes whole tokens: a part of the text that ends with a separator.");
    } else if (enter(self) == 0) {
        int status;
        Py_BEGIN_ALLOW_THREADS
        status = scan(self, data, data + start, data + end);
        Py_END_ALLOW_THREADS
        result = status < 0 ? failure(self) : found(self);
        self->busy = 0;
    }
    PyBuffer_Release(&text);
    return result;
}

static PyObject *scanner_begin(Scanner *self, PyObject *arguments)
{
    Py_ssize_t source, line = 1;
    if (!PyArg_ParseTuple(arguments, "n|n:begin", &source, &line))
        return NULL;
    self->source = source;
    self->line = line;
    Py_RETURN_NONE;
}

static PyObject *scanner_pending(Scanner *self, PyObject *Py_UNUSED(none))
{
    Piece *filling = &self->filling;
    return Py_BuildValue("(y#nnnnn)", (const char *)self->out, filling->end, filling->ids, filling->source,
                         filling->line, filling->invalid, filling->duplicate);
}

static PyObject *scanner_resume(Scanner *self, PyObject *arguments)
{
    Py_buffer text;
    Piece filling = {0}, closed = {0};
    if (!PyArg_ParseTuple(arguments, "(y*nnnnn)(nnn):resume", &text, &filling.ids, &filling.source, &filling.line,
                          &filling.invalid, &filling.duplicate, &closed.ids, &closed.invalid, &closed.duplicate))
        return NULL;
    if (filling.ids < 0 || filling.ids >= self->size) {
        PyBuffer_Release(&text);
        PyErr_SetString(PyExc_ValueError, "A chunk that goes on being filled is not full.");
        return NULL;
    }
    filling.end = text.len;
    self->filling.end = 0;
    int failed = make_room(self, (size_t)text.len) < 0;
    if (!failed) {
        memcpy(self->out, text.buf, (size_t)text.len);
        self->filling = filling;
        self->closed = closed;
    }
    PyBuffer_Release(&text);
    if (failed)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

static PyObject *scanner_dump(Scanner *self, PyObject *arguments)
{
    Py_ssize_t given;
    if (!PyArg_ParseTuple(arguments, "n:dump", &given))
        return NULL;
    size_t place = (size_t)given;
    if (self->opaque) {
        size_t length = 0;
        const uint8_t *data = (const uint8_t *)"";
        if (place < self->texts.block_count)
            data = texts_block(&self->texts, place++, &length);
        if (!data)
            return failure(self);
        return Py_BuildValue("(y#n)", (const char *)data, (Py_ssize_t)length, (Py_ssize_t)place);
    }
    uint8_t *data = malloc(DUMPED_AT_ONCE);
    if (!data)
        return PyErr_NoMemory();
    size_t length;
    Py_BEGIN_ALLOW_THREADS
    length = integers_dump(&self->integers, &place, data, DUMPED_AT_ONCE);
    Py_END_ALLOW_THREADS
    PyObject *result = Py_BuildValue("(y#n)", (const char *)data, (Py_ssize_t)length, (Py_ssize_t)place);
    free(data);
    return result;
}

static PyObject *scanner_load(Scanner *self, PyObject *arguments)
{
    Py_buffer data;
    int status;
    if (!PyArg_ParseTuple(arguments, "y*:load", &data))
        return NULL;
    if (!self->dedupe) {
        PyBuffer_Release(&data);
        PyErr_SetString(PyExc_ValueError, "This Scanner keeps no set of ids.");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    status = self->opaque ? texts_load(&self->texts, data.buf, (size_t)data.len)
                          : integers_load(&self->integers, data.buf, (size_t)data.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    if (status == -1)
        return failure(self);
    if (status == -2) {
        PyErr_SetString(PyExc_ValueError, "These bytes are no part of a set of ids.");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *scanner_line(Scanner *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->line);
}

static PyObject *scanner_totals(Scanner *self, void *Py_UNUSED(closure))
{
    const Piece *filling = &self->filling, *closed = &self->closed;
    return Py_BuildValue("(nnn)", closed->ids + filling->ids, closed->invalid + filling->invalid,
                         closed->duplicate + filling->duplicate);
}

static PyObject *scanner_closed(Scanner *self, void *Py_UNUSED(closure))
{
    return Py_BuildValue("(nnn)", self->closed.ids, self->closed.invalid, self->closed.duplicate);
}

static PyObject *scanner_seen_bytes(Scanner *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(self->integers.bytes + self->texts.bytes);
}

static PyObject *scanner_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {"size", "dedupe", "opaque", "file", NULL};
    Py_ssize_t size;
    int dedupe = 0, opaque = 0, file = -1;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "n|$ppi:Scanner", names, &size, &dedupe, &opaque, &file))
        return NULL;
    if (size < 1) {
        PyErr_SetString(PyExc_ValueError, "A chunk has at least one id.");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Scanner *self = (Scanner *)allocate(type, 0);
    if (!self)
        return NULL;
    self->size = size;
    self->dedupe = dedupe;
    self->opaque = opaque;
    self->line = 1;
    if (dedupe && (opaque ? texts_init(&self->texts, file) : integers_init(&self->integers)) < 0) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    return (PyObject *)self;
}

static void scanner_dealloc(Scanner *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    integers_free(&self->integers);
    texts_free(&self->texts);
    free(self->out);
    free(self->pieces);
    free(self->faults);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyMethodDef scanner_methods[] = {
    {"begin", (PyCFunction)scanner_begin, METH_VARARGS, "Starts on the source with this number, at line 1 or a given one."},
    {"scan", (PyCFunction)scanner_scan, METH_VARARGS,
     "Takes whole tokens, text[start:end]. Gives the chunks that became full, each as (body, ids, source, line, invalid,\n"
     "duplicate), and what is no id, each as (line, start, length) in the text."},
    {"pending", (PyCFunction)scanner_pending, METH_NOARGS,
     "Gives the chunk that is being filled, each id with a newline behind it; the rest as `scan` does."},
    {"resume", (PyCFunction)scanner_resume, METH_VARARGS, "Goes on with what `pending` and `closed` gave."},
    {"dump", (PyCFunction)scanner_dump, METH_VARARGS,
     "Gives a part of the set of ids from a place on, and the place behind it; nothing at the end. Begins with 0."},
    {"load", (PyCFunction)scanner_load, METH_VARARGS, "Takes in a part that `dump` gave."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef scanner_properties[] = {
    {"line", (getter)scanner_line, NULL, "The line on which the next token stands.", NULL},
    {"totals", (getter)scanner_totals, NULL, "How many ids were kept, invalid and duplicate so far.", NULL},
    {"closed", (getter)scanner_closed, NULL, "The same of the chunks that became full.", NULL},
    {"seen_bytes", (getter)scanner_seen_bytes, NULL, "Memory of the set of ids already met.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot scanner_slots[] = {
    {Py_tp_doc, "Cuts text into chunks of ids; see native/scan.c."},
    {Py_tp_new, scanner_new},
    {Py_tp_dealloc, scanner_dealloc},
    {Py_tp_methods, scanner_methods},
    {Py_tp_getset, scanner_properties},
    {0, NULL},
};

static PyType_Spec scanner_spec = {
    .name = "bulkjobs._scan.Scanner",
    .basicsize = sizeof(Scanner),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scanner_slots,
};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&scanner_spec);
    if (!type)
        return -1;
    int status = PyModule_AddObjectRef(module, "Scanner", type);
    Py_DECREF(type);
    return status;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_scan",
    .m_doc = "The part of chunking that looks at every byte.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__scan(void)
{
    return PyModuleDef_Init(&module);
}
