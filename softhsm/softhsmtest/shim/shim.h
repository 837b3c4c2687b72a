/*
 * A PKCS#11 module that stands in front of another one and breaks on command.
 *
 * It is copied into a folder of its own, next to three files:
 *   real.so   a copy of the module behind it; its own copy, so that nothing is shared with other users of that module
 *   env       lines NAME=value: what real.so sees when it reads its environment
 *   control   struct control, mapped by this module and by whoever commands it, in this or another process
 */
#ifndef SHIM_H
#define SHIM_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define CK_PTR *
#define CK_DECLARE_FUNCTION(type, name) type name
#define CK_DECLARE_FUNCTION_POINTER(type, name) type(*name)
#define CK_CALLBACK_FUNCTION(type, name) type(*name)
#ifndef NULL_PTR
#define NULL_PTR 0
#endif
#include "pkcs11.h"

/* Every PKCS#11 function by number, in the order of pkcs11f.h; 0 is every function that reaches for the token. */
enum function {
	EVERY,
#define CK_PKCS11_FUNCTION_INFO(name) F_##name,
#include "pkcs11f.h"
#undef CK_PKCS11_FUNCTION_INFO
	FUNCTIONS
};

#define LAYOUT 1           /* of struct control */
#define UNLIMITED UINT32_MAX

typedef _Atomic uint32_t word;

/* What is counted and commanded for one function. */
struct row {
	word calls;    /* so far */
	word failed;   /* of them, with an injected answer */
	word code;     /* that answer */
	word permille; /* its probability */
	word left;     /* how many more times; UNLIMITED, or 0 for none */
	word latency;  /* microseconds, before anything else happens */
	word hang;     /* while set, calls wait */
	word spare;
};

/* The layout is known to control.go, too. */
struct control {
	word layout, functions; /* LAYOUT, FUNCTIONS */

	/* commands */
	word dropped;  /* counts: a session from before the last change is dead */
	word removed;  /* while set, there is no token */
	word down;     /* while set, the module has lost its token for good: only C_Initialize brings it back */
	word restarts; /* counts: a C_Initialize from before the last change has lost its token for good */
	word limit;    /* of open sessions; 0 means none */
	word dying;    /* per mille of C_SignInit and C_Sign that find their session dead */
	word flipping; /* per mille of signatures with a flipped bit */

	/* states */
	word open, running, blocked;
	word reaped; /* the value of dropped for which open is true */

	/* counts */
	word most_open, most_running, died, flipped;
	word overlaps;       /* calls on a session that was in use */
	word closed_busy;    /* sessions closed while in use */
	word finalized_busy; /* C_Finalize with calls in flight */
	word spare[12];

	struct row rows[FUNCTIONS];
};

extern struct control *control;
extern CK_FUNCTION_LIST_PTR real;
extern CK_FUNCTION_LIST functions;

/* One call of the application, from begin to end. */
struct call {
	enum function function;
	CK_SESSION_HANDLE handle; /* as the application knows the session; 0 for none */
	CK_SESSION_HANDLE session; /* as the real module does */
	bool query;               /* asks for a length only: no fault of its own, not counted */
	bool inside;              /* holds the real module */
	bool pinned;              /* holds the session */
};

/* begin answers CKR_OK when the real module is to be called; end must follow in any case and passes the answer on. */
CK_RV begin(struct call *c, enum function f, CK_SESSION_HANDLE handle);
CK_RV end(struct call *c, CK_RV rv);
bool removed(void);
bool chance(uint32_t permille);
uint32_t dice(void);

/* The functions that need more than begin, the real call and end. */
CK_RV shim_initialize(CK_VOID_PTR args);
CK_RV shim_finalize(CK_VOID_PTR reserved);
CK_RV shim_open(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR handle);
CK_RV shim_close(CK_SESSION_HANDLE handle);
CK_RV shim_close_all(CK_SLOT_ID slot);

/*
 * session.c. The real module is used under a lock that many may hold; alone_enter waits until nobody else is in it.
 * Lock order: real module, then table.
 */
void real_enter(void);
void real_leave(void);
void alone_enter(void);
void alone_leave(void);
void reap_enter(void); /* real_enter, after the dead sessions have been closed: a dropped login is gone by then */

void busy(CK_SESSION_HANDLE handle, bool closing);
void idle(CK_SESSION_HANDLE handle);
unsigned busy_on(CK_SLOT_ID slot);
CK_RV pin(CK_SESSION_HANDLE handle, CK_SESSION_HANDLE *session);
void unpin(CK_SESSION_HANDLE handle);
void kill_session(CK_SESSION_HANDLE handle);
CK_RV close_session(CK_SESSION_HANDLE handle);
long reserve(void);
CK_SESSION_HANDLE settle(long place, CK_SLOT_ID slot, CK_SESSION_HANDLE session);
void forget_slot(CK_SLOT_ID slot);
void forget_all(void);

#endif
