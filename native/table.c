/* One column of a table as a text of its own: the part of reading a table that looks at every byte or value.
 *
 * What comes out of delimiter-separated text has one line for each line of the table: the cell, and an empty line for each further line of a row
 * that has line ends in quotes. So line numbers are those of the table. Separators inside of a cell are escaped: a cell
 * stays one piece, and a row without a cell gets a word in its place, since somebody will want to know of it.
 *
 * Quoting is that of RFC 4180, read as leniently as by Python's csv module: a quote opens only at the beginning of a
 * cell, and what stands behind the closing one belongs to the cell.
 *
 * Of an Arrow array (from a Parquet file) each value is a line in the same way.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *text;
    Py_ssize_t length;
} Word;

typedef struct {
    char delimiter;
    Py_ssize_t column;
    Word empty;   /* in place of a cell with nothing but blanks */
    Word missing; /* in place of a cell that a row is too short for */
} Table;

typedef struct {
    char *text;
    size_t length, room;
    int failed; /* no memory */
} Out;

static char *reserve(Out *out, size_t more)
{
    if (out->room - out->length < more) {
        size_t room = 2 * out->room + more;
        char *text = realloc(out->text, room);
        if (!text) {
            out->failed = 1;
            return NULL;
        }
        out->text = text;
        out->room = room;
    }
    return out->text + out->length;
}

static void put(Out *out, const char *text, size_t length)
{
    char *to = reserve(out, length);
    if (to) {
        memcpy(to, text, length);
        out->length += length;
    }
}

/* Puts a part of a cell, so that it stays one piece. */
static void put_escaped(Out *out, const char *from, const char *end)
{
    char *to = reserve(out, 4 * (size_t)(end - from));
    if (!to)
        return;
    for (; from < end; from++) {
        switch (*from) {
        case ',': memcpy(to, "\\x2c", 4), to += 4; break;
        case '\r': memcpy(to, "\\r", 2), to += 2; break;
        case '\n': memcpy(to, "\\n", 2), to += 2; break;
        default: *to++ = *from;
        }
    }
    out->length = (size_t)(to - out->text);
}

/* Ends a cell that begins at `start` of the output: with the word for an empty one if it is. */
static void end_cell(Out *out, size_t start, const Table *table)
{
    for (size_t at = start; at < out->length; at++)
        if (out->text[at] != ' ' && out->text[at] != '\t')
            return;
    out->length = start;
    put(out, table->empty.text, (size_t)table->empty.length);
}

/* Gives the end of a cell that reaches to the end of its row, without the first half of a line end. */
static const char *row_end(const char *cell, const char *newline)
{
    return newline > cell && newline[-1] == '\r' ? newline - 1 : newline;
}

/* Takes a row without a quote: looks at each byte up to the end of the cell once. */
static void plain_row(Out *out, const char *row, const char *newline, const Table *table)
{
    const char *end = row_end(row, newline), *cell = row;
    char *to = reserve(out, 4 * (size_t)(end - row) + 1);
    if (!to)
        return;
    for (Py_ssize_t left = end > row ? table->column : 0; left; left--) {
        cell = memchr(cell, table->delimiter, (size_t)(end - cell));
        if (!cell++) {
            put(out, table->missing.text, (size_t)table->missing.length);
            put(out, "\n", 1);
            return;
        }
    }
    const char *at = cell;
    for (; at < end && *at != table->delimiter && *at != ',' && *at != '\r'; at++)
        *to++ = *at;
    if (at > cell && *cell != ' ' && *cell != '\t' && (at == end || *at == table->delimiter)) {
        *to++ = '\n'; /* the usual case */
        out->length = (size_t)(to - out->text);
        return;
    }
    if (end > row) {
        size_t start = out->length;
        const char *stop = memchr(cell, table->delimiter, (size_t)(end - cell));
        put_escaped(out, cell, stop ? stop : end);
        end_cell(out, start, table);
    }
    put(out, "\n", 1);
}

/* Takes a row that may have quotes, with the first line end in it; gives where it ends, NULL when that is not there. */
static const char *quoted_row(Out *out, const char *row, const char *newline, const char *end, const Table *table)
{
    size_t before = out->length, lines = 1;
    int found = 0;
    const char *at = row;
    for (Py_ssize_t column = 0;; column++) {
        int wanted = column == table->column;
        size_t start = out->length;
        if (at < end && *at == '"') {
            for (at++;;) {
                const char *quote = at < end ? memchr(at, '"', (size_t)(end - at)) : NULL;
                if (!quote || quote + 1 == end)
                    goto unfinished;
                for (; newline && newline < quote; newline = memchr(newline + 1, '\n', (size_t)(end - newline - 1)))
                    lines++; /* of those in quotes; the first one outside of them ends the row */
                int doubled = quote[1] == '"';
                if (wanted)
                    put_escaped(out, at, quote + doubled);
                at = quote + 1 + doubled;
                if (!doubled)
                    break;
            }
        }
        const char *stop = at;
        while (stop < end && *stop != '\n' && *stop != table->delimiter)
            stop++;
        if (stop == end)
            goto unfinished;
        if (wanted) {
            put_escaped(out, at, *stop == '\n' ? row_end(at, stop) : stop);
            end_cell(out, start, table);
            found = 1;
        }
        at = stop + 1;
        if (*stop == '\n')
            break;
    }
    if (!found)
        put(out, table->missing.text, (size_t)table->missing.length);
    for (; lines; lines--)
        put(out, "\n", 1);
    return at;
unfinished:
    out->length = before;
    return NULL;
}

/* Takes all whole rows, and gives how many bytes these were. */
static size_t take(Out *out, const char *text, size_t size, const Table *table)
{
    const char *row = text, *end = text + size, *quote = memchr(text, '"', size), *newline;
    while (!out->failed && row < end && (newline = memchr(row, '\n', (size_t)(end - row)))) {
        if (quote && quote < row)
            quote = memchr(row, '"', (size_t)(end - row));
        if (!quote || newline < quote) {
            plain_row(out, row, newline, table);
            row = newline + 1;
        } else {
            const char *next = quoted_row(out, row, newline, end, table);
            if (!next)
                break;
            row = next;
        }
    }
    return (size_t)(row - text);
}

static PyObject *column_of(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *text;
    int delimiter;
    Table table;
    if (!PyArg_ParseTuple(args, "Siny#y#", &text, &delimiter, &table.column, &table.empty.text, &table.empty.length,
                          &table.missing.text, &table.missing.length))
        return NULL;
    char *data;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(text, &data, &size) < 0)
        return NULL;
    table.delimiter = (char)delimiter;
    Out out = {.text = malloc((size_t)size / 2 + 1)};
    out.room = out.text ? (size_t)size / 2 + 1 : 0;
    size_t taken;
    Py_BEGIN_ALLOW_THREADS
    taken = take(&out, data, (size_t)size, &table);
    Py_END_ALLOW_THREADS
    PyObject *result = out.failed ? PyErr_NoMemory()
                                  : Py_BuildValue("y#n", out.text ? out.text : "", (Py_ssize_t)out.length,
                                                  (Py_ssize_t)taken);
    free(out.text);
    return result;
}

/* Tells whether value `at` of an Arrow array is one; without a bitmap all are. */
static int is_valid(const Py_buffer *validity, Py_ssize_t at)
{
    return !validity->buf || ((const unsigned char *)validity->buf)[at >> 3] >> (at & 7) & 1;
}

static int holds(const Py_buffer *buffer, Py_ssize_t offset, Py_ssize_t count, Py_ssize_t width)
{
    return offset >= 0 && count >= 0 && count <= PY_SSIZE_T_MAX / width - offset &&
           buffer->len >= (offset + count) * width;
}

static int holds_bits(const Py_buffer *validity, Py_ssize_t offset, Py_ssize_t count)
{
    return !validity->buf || (offset + count + 7) / 8 <= validity->len;
}

/* Writes a number of so many digits. */
static void write_digits(char *to, uint64_t value, int digits)
{
    static const char pairs[] = "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243"
                                "4445464748495051525354555657585960616263646566676869707172737475767778798081828384858687"
                                "888990919293949596979899";
    char *end = to + digits;
    for (; value > UINT32_MAX; value /= 100)
        memcpy(end -= 2, pairs + 2 * (value % 100), 2);
    uint32_t rest = (uint32_t)value; /* which is divided in a third of the time */
    for (; rest >= 100; rest /= 100)
        memcpy(end -= 2, pairs + 2 * (rest % 100), 2);
    if (rest >= 10)
        memcpy(end - 2, pairs + 2 * rest, 2);
    else
        *--end = (char)('0' + rest);
}

/* Gives how many digits a number has; begins with a guess, since ids of one list are mostly of one length. */
static int digits_of(uint64_t value, int guess)
{
    static const uint64_t powers[] = {
        0ULL, 10ULL, 100ULL, 1000ULL, 10000ULL, 100000ULL, 1000000ULL, 10000000ULL, 100000000ULL, 1000000000ULL,
        10000000000ULL, 100000000000ULL, 1000000000000ULL, 10000000000000ULL, 100000000000000ULL,
        1000000000000000ULL, 10000000000000000ULL, 100000000000000000ULL, 1000000000000000000ULL,
        10000000000000000000ULL,
    };
    while (guess < 20 && value >= powers[guess])
        guess++;
    while (guess > 1 && value < powers[guess - 1])
        guess--;
    return guess;
}

static void take_integers(Out *out, const uint64_t *values, const Py_buffer *validity, Py_ssize_t offset,
                          Py_ssize_t count, int is_signed, Word null)
{
    int digits = 1;
    for (Py_ssize_t at = offset; at < offset + count && !out->failed; at++) {
        if (!is_valid(validity, at)) {
            put(out, null.text, (size_t)null.length);
            put(out, "\n", 1);
            continue;
        }
        char *to = reserve(out, 22);
        if (!to)
            return;
        uint64_t value = values[at];
        if (is_signed && (int64_t)value < 0) {
            value = 0 - value;
            *to++ = '-';
        }
        digits = digits_of(value, digits);
        write_digits(to, value, digits);
        to += digits;
        *to++ = '\n';
        out->length = (size_t)(to - out->text);
    }
}

/* Gives the output as bytes, or the error, and lets go of it. */
static PyObject *result_of(Out *out, int damaged)
{
    PyObject *result;
    if (out->failed)
        result = PyErr_NoMemory();
    else if (damaged)
        result = (PyErr_SetString(PyExc_ValueError, "an array that does not hold what it should"), NULL);
    else
        result = PyBytes_FromStringAndSize(out->text ? out->text : "", (Py_ssize_t)out->length);
    free(out->text);
    return result;
}

static PyObject *integers_of(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer values, validity;
    Py_ssize_t offset, count;
    int is_signed;
    Word null;
    if (!PyArg_ParseTuple(args, "y*z*nnpy#", &values, &validity, &offset, &count, &is_signed, &null.text, &null.length))
        return NULL;
    Out out = {0};
    int damaged = !holds(&values, offset, count, 8) || !holds_bits(&validity, offset, count);
    if (!damaged) {
        Py_BEGIN_ALLOW_THREADS
        reserve(&out, 12 * (size_t)count);
        take_integers(&out, values.buf, &validity, offset, count, is_signed, null);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&validity);
    return result_of(&out, damaged);
}

static int64_t offset_at(const void *offsets, int wide, Py_ssize_t at)
{
    return wide ? ((const int64_t *)offsets)[at] : ((const int32_t *)offsets)[at];
}

/* Gives 0 if an offset leads out of the data. */
static int take_texts(Out *out, const Py_buffer *data, const void *offsets, int wide, const Py_buffer *validity,
                      Py_ssize_t offset, Py_ssize_t count, const Table *words)
{
    const char *text = data->buf ? data->buf : "";
    for (Py_ssize_t at = offset; at < offset + count && !out->failed; at++) {
        if (!is_valid(validity, at)) {
            put(out, words->missing.text, (size_t)words->missing.length);
        } else {
            int64_t from = offset_at(offsets, wide, at), end = offset_at(offsets, wide, at + 1);
            if (from < 0 || end < from || end > data->len)
                return 0;
            size_t start = out->length;
            put_escaped(out, text + from, text + end);
            end_cell(out, start, words);
        }
        put(out, "\n", 1);
    }
    return 1;
}

static PyObject *texts_of(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data, offsets, validity;
    Py_ssize_t offset, count;
    int wide;
    Table words;
    if (!PyArg_ParseTuple(args, "z*y*z*nnpy#y#", &data, &offsets, &validity, &offset, &count, &wide, &words.empty.text,
                          &words.empty.length, &words.missing.text, &words.missing.length))
        return NULL;
    Out out = {0};
    int damaged = count < 0 || !holds(&offsets, offset, count + 1, wide ? 8 : 4) || !holds_bits(&validity, offset, count);
    if (!damaged) {
        Py_BEGIN_ALLOW_THREADS
        reserve(&out, 12 * (size_t)count);
        damaged = !take_texts(&out, &data, offsets.buf, wide, &validity, offset, count, &words);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&validity);
    return result_of(&out, damaged);
}

static PyMethodDef methods[] = {
    {"column_of", column_of, METH_VARARGS,
     "Gives a column of the whole rows in a text, and how many bytes these rows were; see native/table.c."},
    {"integers_of", integers_of, METH_VARARGS, "Writes the 64-bit integers of an Arrow array, one a line."},
    {"texts_of", texts_of, METH_VARARGS, "Writes the texts of an Arrow array, one a line."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_table",
    .m_doc = "The part of reading a table that looks at every byte.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__table(void)
{
    return PyModuleDef_Init(&module);
}
