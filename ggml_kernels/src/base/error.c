#include "error.h"

static _Thread_local const char *last_error = "";

genie_status genie_fail(genie_status status, const char *why) {
    last_error = why;
    return status;
}

const char *genie_last_error(void) { return last_error; }
