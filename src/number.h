/*
 * number.h: numbers that take as few bytes as they need, and reading bytes
 * that may end too early.
 */
#ifndef ES_NUMBER_H
#define ES_NUMBER_H

#include "postgres.h"

#include "lib/stringinfo.h"

/* Bytes that are being read; bad once one was missing. */
typedef struct EsInput
{
	const char *at;
	const char *end;
	bool		bad;
} EsInput;

/* Seven bits a byte, the low ones first. */
static inline void
EsPutNumber(StringInfo out, uint64 value)
{
	char		bytes[10];
	int			n = 0;

	while (value >= 0x80)
	{
		bytes[n++] = (char) (value | 0x80);
		value >>= 7;
	}
	bytes[n++] = (char) value;
	appendBinaryStringInfo(out, bytes, n);
}

static inline uint64
EsGetNumber(EsInput *in)
{
	uint64		value = 0;

	for (int shift = 0; shift < 64; shift += 7)
	{
		unsigned char byte;

		if (in->at >= in->end)
			break;
		byte = (unsigned char) *in->at++;
		value |= (uint64) (byte & 0x7F) << shift;
		if (byte < 0x80)
			return value;
	}
	in->bad = true;
	return 0;
}

/* Small differences of either sign become small numbers. */
static inline uint64
EsFoldSign(uint64 difference)
{
	return (difference << 1) ^ (uint64) -(int64) (difference >> 63);
}

static inline uint64
EsUnfoldSign(uint64 folded)
{
	return (folded >> 1) ^ (uint64) -(int64) (folded & 1);
}

/* The next n bytes where they are, or NULL. */
static inline const char *
EsGetBytes(EsInput *in, Size n)
{
	const char *bytes = in->at;

	if (in->bad || (Size) (in->end - in->at) < n)
	{
		in->bad = true;
		return NULL;
	}
	in->at += n;
	return bytes;
}

#endif							/* ES_NUMBER_H */
