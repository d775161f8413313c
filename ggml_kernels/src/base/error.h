/* Why a call failed, in words. */
#ifndef GENIE_BASE_ERROR_H
#define GENIE_BASE_ERROR_H

#include "genie.h"

/* Keeps `why`, a text that lives for ever, for genie_last_error of this thread. Returns the status. */
genie_status genie_fail(genie_status status, const char *why);

#endif
