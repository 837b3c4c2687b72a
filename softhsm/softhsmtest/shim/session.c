/* The sessions: the application gets handles of our own, so that a session can die although the real one lives. */
#define _GNU_SOURCE
#include <pthread.h>
#include <string.h>

#include "shim.h"

#define SESSIONS 16384

struct session {
	CK_SESSION_HANDLE handle;  /* a place in the table plus a multiple of SESSIONS; 0 while there is none */
	CK_SESSION_HANDLE session; /* of the real module */
	CK_SLOT_ID slot;
	uint32_t born;  /* control->dropped when it was opened */
	unsigned calls; /* of the application, waiting ones included */
	bool inside;    /* one of them is in the real module */
	bool dead;
	bool taken;
};

static struct session table[SESSIONS];
static CK_SESSION_HANDLE opened; /* so far: handles are never used again */
static uint32_t reaped;          /* the value of control->dropped for which the dead sessions are gone; set alone */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t left = PTHREAD_COND_INITIALIZER;
static pthread_rwlock_t module = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

void real_enter(void) { pthread_rwlock_rdlock(&module); }
void real_leave(void) { pthread_rwlock_unlock(&module); }
void alone_enter(void) { pthread_rwlock_wrlock(&module); }
void alone_leave(void) { pthread_rwlock_unlock(&module); }

static struct session *find(CK_SESSION_HANDLE handle)
{
	struct session *s = &table[handle % SESSIONS];
	return handle != 0 && s->handle == handle ? s : NULL;
}

static bool alive(const struct session *s) { return !s->dead && s->born == control->dropped; }

static void release(struct session *s)
{
	if (s->handle != 0)
		control->open--;
	memset(s, 0, sizeof *s);
}

void reap_enter(void)
{
	for (;;) {
		real_enter();
		if (reaped == control->dropped)
			return;
		real_leave();
		alone_enter(); /* nobody is inside any session now */
		uint32_t dropped = control->dropped;
		for (struct session *s = table; s < table + SESSIONS; s++) {
			if (s->handle != 0 && (s->dead || s->born != dropped)) {
				real->C_CloseSession(s->session);
				release(s);
			}
		}
		control->reaped = reaped = dropped;
		alone_leave();
	}
}

void busy(CK_SESSION_HANDLE handle, bool closing)
{
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	if (s != NULL) {
		if (s->calls > 0 && closing)
			control->closed_busy++;
		else if (s->calls > 0)
			control->overlaps++;
		s->calls++;
	}
	pthread_mutex_unlock(&lock);
}

void idle(CK_SESSION_HANDLE handle)
{
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	if (s != NULL && s->calls > 0)
		s->calls--;
	pthread_mutex_unlock(&lock);
}

unsigned busy_on(CK_SLOT_ID slot)
{
	unsigned n = 0;
	pthread_mutex_lock(&lock);
	for (struct session *s = table; s < table + SESSIONS; s++)
		n += s->handle != 0 && s->slot == slot && s->calls > 0;
	pthread_mutex_unlock(&lock);
	return n;
}

/* pin waits for its turn: two calls on one session are a mistake that is counted, and that would crash SoftHSM2. */
CK_RV pin(CK_SESSION_HANDLE handle, CK_SESSION_HANDLE *session)
{
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	while (s != NULL && s->inside) {
		pthread_cond_wait(&left, &lock);
		s = find(handle);
	}
	bool ok = s != NULL && alive(s);
	if (ok) {
		s->inside = true;
		*session = s->session;
	}
	pthread_mutex_unlock(&lock);
	return ok ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

/* unpin closes the session if it died meanwhile. */
void unpin(CK_SESSION_HANDLE handle)
{
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	bool dead = s != NULL && s->dead;
	CK_SESSION_HANDLE session = s != NULL ? s->session : 0;
	if (s != NULL && !dead)
		s->inside = false;
	pthread_cond_broadcast(&left);
	pthread_mutex_unlock(&lock);
	if (!dead)
		return;
	real->C_CloseSession(session);
	pthread_mutex_lock(&lock);
	release(s); /* still ours: inside was kept */
	pthread_cond_broadcast(&left);
	pthread_mutex_unlock(&lock);
}

/* kill_session is for whoever has pinned the session. */
void kill_session(CK_SESSION_HANDLE handle)
{
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	if (s != NULL)
		s->dead = true;
	pthread_mutex_unlock(&lock);
}

CK_RV close_session(CK_SESSION_HANDLE handle)
{
	CK_SESSION_HANDLE session;
	CK_RV rv = pin(handle, &session);
	if (rv != CKR_OK)
		return rv;
	rv = real->C_CloseSession(session);
	pthread_mutex_lock(&lock);
	struct session *s = find(handle);
	s->inside = false;
	if (rv == CKR_OK || rv == CKR_SESSION_HANDLE_INVALID)
		release(s);
	pthread_cond_broadcast(&left);
	pthread_mutex_unlock(&lock);
	return rv;
}

/* reserve takes a place for a session that is about to be opened, or answers -1 when there are enough. */
long reserve(void)
{
	long place = -1;
	pthread_mutex_lock(&lock);
	uint32_t limit = control->limit, taken = 0;
	for (long i = 0; i < SESSIONS && (limit == 0 || taken < limit); i++) {
		struct session *s = &table[i];
		if (s->taken)
			taken++;
		else if (place < 0)
			place = i;
		if (limit == 0 && place >= 0)
			break;
	}
	if (limit != 0 && taken >= limit)
		place = -1;
	if (place >= 0)
		table[place] = (struct session){.taken = true, .born = reaped};
	pthread_mutex_unlock(&lock);
	return place;
}

/* settle puts the opened session into its place, or gives the place back when there is none (session 0). */
CK_SESSION_HANDLE settle(long place, CK_SLOT_ID slot, CK_SESSION_HANDLE session)
{
	CK_SESSION_HANDLE handle = 0;
	pthread_mutex_lock(&lock);
	struct session *s = &table[place];
	if (session == 0) {
		memset(s, 0, sizeof *s);
	} else {
		handle = s->handle = ++opened * SESSIONS + place;
		s->slot = slot;
		s->session = session;
		uint32_t open = ++control->open;
		if (open > control->most_open)
			control->most_open = open;
	}
	pthread_mutex_unlock(&lock);
	return handle;
}

void forget_slot(CK_SLOT_ID slot)
{
	pthread_mutex_lock(&lock);
	for (struct session *s = table; s < table + SESSIONS; s++) {
		if (s->handle != 0 && s->slot == slot)
			release(s);
	}
	pthread_mutex_unlock(&lock);
}

void forget_all(void)
{
	pthread_mutex_lock(&lock);
	memset(table, 0, sizeof table);
	control->open = 0; /* whatever a process that was killed has left here */
	control->reaped = reaped = control->dropped;
	pthread_mutex_unlock(&lock);
}
