/* One call: what is counted, what goes wrong, and the functions that change what calls there may be. */
#define _GNU_SOURCE
#include <errno.h>
#include <time.h>

#include "shim.h"

static word running, blocked;             /* in this process */
static word initialized, initialized_with; /* control->restarts at C_Initialize */
static _Atomic uint64_t thrown;

/* dice is SplitMix64 (Steele, Lea, Flood 2014) on a shared counter: cheap, and safe for any number of threads. */
uint32_t dice(void)
{
	uint64_t z = atomic_fetch_add(&thrown, 0x9e3779b97f4a7c15u) + (uintptr_t)control;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return (uint32_t)((z ^ (z >> 31)) >> 32);
}

bool chance(uint32_t permille) { return permille > 0 && dice() % 1000 < permille; }

static void nap(uint32_t microseconds)
{
	struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000L};
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static bool reaches_token(enum function f)
{
	return f != F_C_Initialize && f != F_C_Finalize && f != F_C_GetInfo;
}

static void raise_to(word *most, uint32_t n)
{
	uint32_t old = *most;
	while (n > old && !atomic_compare_exchange_weak(most, &old, n))
		;
}

static bool hanging(enum function f)
{
	return control->rows[f].hang || (reaches_token(f) && control->rows[EVERY].hang);
}

/* linger is the time that a call takes before anything else. */
static void linger(enum function f)
{
	uint32_t latency = control->rows[f].latency + (reaches_token(f) ? control->rows[EVERY].latency : 0);
	if (latency > 0)
		nap(latency);
	if (!hanging(f))
		return;
	control->blocked++;
	blocked++;
	while (hanging(f))
		nap(1000);
	control->blocked--;
	blocked--;
}

bool removed(void) { return control->removed; }

/* absent is the answer of a module without its token, CKR_OK when it is there. */
static CK_RV absent(enum function f, bool on_session)
{
	if (f == F_C_Initialize || f == F_C_Finalize)
		return CKR_OK;
	if (initialized && (control->down || control->restarts != initialized_with))
		return CKR_DEVICE_ERROR;
	if (!removed() || f == F_C_GetInfo || f == F_C_GetSlotList || f == F_C_GetSlotInfo || f == F_C_WaitForSlotEvent)
		return CKR_OK;
	return on_session ? CKR_DEVICE_REMOVED : CKR_TOKEN_NOT_PRESENT;
}

/* PRETENDED is CKR_OK from a function that was not called; end turns it into CKR_OK. It is outside the numbers of PKCS#11. */
#define PRETENDED ((CK_RV)0x7fffffff)

/* injected is the commanded answer of a function, CKR_OK when there is none. */
static CK_RV injected(enum function f, enum function rule)
{
	struct row *r = &control->rows[rule];
	uint32_t left = r->left;
	if (left == 0 || !chance(r->permille))
		return CKR_OK;
	while (left != UNLIMITED && !atomic_compare_exchange_weak(&r->left, &left, left - 1)) {
		if (left == 0)
			return CKR_OK;
	}
	control->rows[f].failed++;
	control->rows[EVERY].failed++;
	return r->code == CKR_OK ? PRETENDED : r->code;
}

CK_RV begin(struct call *c, enum function f, CK_SESSION_HANDLE handle)
{
	c->function = f;
	c->handle = handle;
	control->running++;
	raise_to(&control->most_running, ++running);
	if (handle != 0)
		busy(handle, f == F_C_CloseSession);
	if (!c->query) {
		control->rows[f].calls++;
		control->rows[EVERY].calls++;
		linger(f);
	}
	CK_RV rv = absent(f, handle != 0);
	if (rv == CKR_OK && !c->query) {
		rv = injected(f, f);
		if (rv == CKR_OK && reaches_token(f))
			rv = injected(f, EVERY);
	}
	if (rv != CKR_OK || f == F_C_Initialize || f == F_C_Finalize || f == F_C_CloseAllSessions)
		return rv;
	if (handle != 0 && !initialized)
		return CKR_CRYPTOKI_NOT_INITIALIZED;
	if (handle != 0)
		real_enter();
	else
		reap_enter();
	c->inside = true;
	if (handle == 0 || f == F_C_CloseSession)
		return CKR_OK;
	rv = pin(handle, &c->session);
	c->pinned = rv == CKR_OK;
	if (c->pinned && !c->query && (f == F_C_SignInit || f == F_C_Sign) && chance(control->dying)) {
		kill_session(handle);
		control->died++;
		return CKR_SESSION_HANDLE_INVALID;
	}
	return rv;
}

CK_RV end(struct call *c, CK_RV rv)
{
	if (c->pinned)
		unpin(c->handle);
	if (c->inside)
		real_leave();
	if (c->handle != 0)
		idle(c->handle);
	control->running--;
	running--;
	return rv == PRETENDED ? CKR_OK : rv;
}

CK_RV shim_initialize(CK_VOID_PTR args)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_Initialize, 0);
	if (rv == CKR_OK) {
		alone_enter();
		uint32_t restarts = control->restarts;
		rv = real->C_Initialize(args);
		if (rv == CKR_OK) {
			forget_all();
			control->running = running; /* whatever a process that was killed has left there */
			control->blocked = blocked;
			initialized_with = restarts;
			initialized = 1;
		}
		alone_leave();
	}
	return end(&c, rv);
}

CK_RV shim_finalize(CK_VOID_PTR reserved)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_Finalize, 0);
	if (running > 1)
		control->finalized_busy++;
	if (rv == CKR_OK) {
		alone_enter();
		rv = real->C_Finalize(reserved);
		if (rv == CKR_OK) {
			forget_all();
			initialized = 0;
		}
		alone_leave();
	}
	return end(&c, rv);
}

CK_RV shim_open(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR handle)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_OpenSession, 0);
	if (rv == CKR_OK) {
		CK_SESSION_HANDLE session = 0;
		long place = reserve();
		if (place < 0)
			return end(&c, CKR_SESSION_COUNT);
		rv = handle == NULL_PTR ? CKR_ARGUMENTS_BAD : real->C_OpenSession(slot, flags, app, notify, &session);
		CK_SESSION_HANDLE ours = settle(place, slot, rv == CKR_OK ? session : 0);
		if (rv == CKR_OK)
			*handle = ours;
	}
	return end(&c, rv);
}

CK_RV shim_close(CK_SESSION_HANDLE handle)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_CloseSession, handle);
	if (rv == CKR_OK)
		rv = close_session(handle);
	return end(&c, rv);
}

CK_RV shim_close_all(CK_SLOT_ID slot)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_CloseAllSessions, 0);
	control->closed_busy += busy_on(slot);
	if (rv == CKR_OK) {
		alone_enter();
		rv = real->C_CloseAllSessions(slot);
		if (rv == CKR_OK)
			forget_slot(slot);
		alone_leave();
	}
	return end(&c, rv);
}
