/* Why a call failed, in words. */
#ifndef GENIE_BASE_ERROR_H
#define GENIE_BASE_ERROR_H

#include "genie.h"

/* Stores `why` for this thread's genie_last_error. Only the pointer is kept: pass a string literal. Returns the
 * status. */
genie_status genie_fail(genie_status status, const char *why);

#endif
