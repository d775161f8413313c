/* Assertions, only in `make debug`: a release has none, because the core never aborts. */
#ifndef GENIE_ASSERT_H
#define GENIE_ASSERT_H

#ifdef GENIE_DEBUG
#include <assert.h>
#define GENIE_ASSERT(ok) assert(ok)
#else
#define GENIE_ASSERT(ok) ((void)0)
#endif

#endif
