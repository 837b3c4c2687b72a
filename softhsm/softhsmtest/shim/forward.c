/* Every function of PKCS#11 2.40, most of them straight through. */
#include "shim.h"

#define SLOT(name, parameters, arguments)                                                                              \
	CK_RV name parameters                                                                                          \
	{                                                                                                              \
		struct call c = {0};                                                                                   \
		CK_RV rv = begin(&c, F_##name, 0);                                                                     \
		if (rv == CKR_OK)                                                                                      \
			rv = real->name arguments;                                                                     \
		return end(&c, rv);                                                                                    \
	}

/* The first parameter of a session function is named handle, the first argument is SESSION. */
#define HANDLE CK_SESSION_HANDLE handle
#define SESSION c.session
#define ON_SESSION(name, parameters, arguments)                                                                        \
	CK_RV name parameters                                                                                          \
	{                                                                                                              \
		struct call c = {0};                                                                                   \
		CK_RV rv = begin(&c, F_##name, handle);                                                                \
		if (rv == CKR_OK)                                                                                      \
			rv = real->name arguments;                                                                     \
		return end(&c, rv);                                                                                    \
	}

typedef CK_BYTE_PTR bytes;
typedef CK_ULONG size;
typedef CK_ULONG_PTR sizes;
typedef CK_MECHANISM_PTR how;
typedef CK_OBJECT_HANDLE object;
typedef CK_OBJECT_HANDLE_PTR objects;
typedef CK_ATTRIBUTE_PTR attributes;

CK_RV C_Initialize(CK_VOID_PTR args) { return shim_initialize(args); }
CK_RV C_Finalize(CK_VOID_PTR reserved) { return shim_finalize(reserved); }
SLOT(C_GetInfo, (CK_INFO_PTR info), (info))

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID_PTR slots, CK_ULONG_PTR count)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_GetSlotList, 0);
	if (rv == CKR_OK && present && removed() && count != NULL_PTR)
		*count = 0;
	else if (rv == CKR_OK)
		rv = real->C_GetSlotList(present, slots, count);
	return end(&c, rv);
}

CK_RV C_GetSlotInfo(CK_SLOT_ID slot, CK_SLOT_INFO_PTR info)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_GetSlotInfo, 0);
	if (rv == CKR_OK)
		rv = real->C_GetSlotInfo(slot, info);
	if (rv == CKR_OK && removed())
		info->flags &= ~(CK_FLAGS)CKF_TOKEN_PRESENT;
	return end(&c, rv);
}

/* A limit of sessions is not told. */
CK_RV C_GetTokenInfo(CK_SLOT_ID slot, CK_TOKEN_INFO_PTR info)
{
	struct call c = {0};
	CK_RV rv = begin(&c, F_C_GetTokenInfo, 0);
	if (rv == CKR_OK)
		rv = real->C_GetTokenInfo(slot, info);
	if (rv == CKR_OK && control->limit != 0)
		info->ulMaxSessionCount = info->ulMaxRwSessionCount = CK_EFFECTIVELY_INFINITE;
	return end(&c, rv);
}

SLOT(C_GetMechanismList, (CK_SLOT_ID slot, CK_MECHANISM_TYPE_PTR list, sizes n), (slot, list, n))
SLOT(C_GetMechanismInfo, (CK_SLOT_ID slot, CK_MECHANISM_TYPE type, CK_MECHANISM_INFO_PTR info), (slot, type, info))
SLOT(C_InitToken, (CK_SLOT_ID slot, bytes pin, size n, CK_UTF8CHAR_PTR label), (slot, pin, n, label))
SLOT(C_WaitForSlotEvent, (CK_FLAGS flags, CK_SLOT_ID_PTR slot, CK_VOID_PTR reserved), (flags, slot, reserved))

CK_RV C_OpenSession(CK_SLOT_ID slot, CK_FLAGS flags, CK_VOID_PTR app, CK_NOTIFY notify, CK_SESSION_HANDLE_PTR handle)
{
	return shim_open(slot, flags, app, notify, handle);
}
CK_RV C_CloseSession(CK_SESSION_HANDLE handle) { return shim_close(handle); }
CK_RV C_CloseAllSessions(CK_SLOT_ID slot) { return shim_close_all(slot); }

ON_SESSION(C_InitPIN, (HANDLE, bytes pin, size n), (SESSION, pin, n))
ON_SESSION(C_SetPIN, (HANDLE, bytes old, size m, bytes new, size n), (SESSION, old, m, new, n))
ON_SESSION(C_GetSessionInfo, (HANDLE, CK_SESSION_INFO_PTR info), (SESSION, info))
ON_SESSION(C_GetOperationState, (HANDLE, bytes state, sizes n), (SESSION, state, n))
ON_SESSION(C_SetOperationState, (HANDLE, bytes state, size n, object k, object a), (SESSION, state, n, k, a))
ON_SESSION(C_Login, (HANDLE, CK_USER_TYPE user, bytes pin, size n), (SESSION, user, pin, n))
ON_SESSION(C_Logout, (HANDLE), (SESSION))
ON_SESSION(C_CreateObject, (HANDLE, attributes a, size n, objects o), (SESSION, a, n, o))
ON_SESSION(C_CopyObject, (HANDLE, object old, attributes a, size n, objects new), (SESSION, old, a, n, new))
ON_SESSION(C_DestroyObject, (HANDLE, object o), (SESSION, o))
ON_SESSION(C_GetObjectSize, (HANDLE, object o, sizes n), (SESSION, o, n))
ON_SESSION(C_GetAttributeValue, (HANDLE, object o, attributes a, size n), (SESSION, o, a, n))
ON_SESSION(C_SetAttributeValue, (HANDLE, object o, attributes a, size n), (SESSION, o, a, n))
ON_SESSION(C_FindObjectsInit, (HANDLE, attributes a, size n), (SESSION, a, n))
ON_SESSION(C_FindObjects, (HANDLE, objects o, size max, sizes n), (SESSION, o, max, n))
ON_SESSION(C_FindObjectsFinal, (HANDLE), (SESSION))

ON_SESSION(C_EncryptInit, (HANDLE, how m, object k), (SESSION, m, k))
ON_SESSION(C_Encrypt, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_EncryptUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_EncryptFinal, (HANDLE, bytes out, sizes n), (SESSION, out, n))
ON_SESSION(C_DecryptInit, (HANDLE, how m, object k), (SESSION, m, k))
ON_SESSION(C_Decrypt, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_DecryptUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_DecryptFinal, (HANDLE, bytes out, sizes n), (SESSION, out, n))
ON_SESSION(C_DigestInit, (HANDLE, how m), (SESSION, m))
ON_SESSION(C_Digest, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_DigestUpdate, (HANDLE, bytes in, size m), (SESSION, in, m))
ON_SESSION(C_DigestKey, (HANDLE, object k), (SESSION, k))
ON_SESSION(C_DigestFinal, (HANDLE, bytes out, sizes n), (SESSION, out, n))

ON_SESSION(C_SignInit, (HANDLE, how m, object k), (SESSION, m, k))

/* miekg/pkcs11 asks for the length first: that is no signature. */
CK_RV C_Sign(HANDLE, bytes in, size m, bytes out, sizes n)
{
	struct call c = {.query = out == NULL_PTR};
	CK_RV rv = begin(&c, F_C_Sign, handle);
	if (rv == CKR_OK)
		rv = real->C_Sign(SESSION, in, m, out, n);
	if (rv == CKR_OK && out != NULL_PTR && *n > 0 && chance(control->flipping)) {
		out[dice() % *n] ^= (CK_BYTE)(1u << dice() % 8);
		control->flipped++;
	}
	return end(&c, rv);
}

ON_SESSION(C_SignUpdate, (HANDLE, bytes in, size m), (SESSION, in, m))
ON_SESSION(C_SignFinal, (HANDLE, bytes out, sizes n), (SESSION, out, n))
ON_SESSION(C_SignRecoverInit, (HANDLE, how m, object k), (SESSION, m, k))
ON_SESSION(C_SignRecover, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_VerifyInit, (HANDLE, how m, object k), (SESSION, m, k))
ON_SESSION(C_Verify, (HANDLE, bytes in, size m, bytes sig, size n), (SESSION, in, m, sig, n))
ON_SESSION(C_VerifyUpdate, (HANDLE, bytes in, size m), (SESSION, in, m))
ON_SESSION(C_VerifyFinal, (HANDLE, bytes sig, size n), (SESSION, sig, n))
ON_SESSION(C_VerifyRecoverInit, (HANDLE, how m, object k), (SESSION, m, k))
ON_SESSION(C_VerifyRecover, (HANDLE, bytes sig, size m, bytes out, sizes n), (SESSION, sig, m, out, n))
ON_SESSION(C_DigestEncryptUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_DecryptDigestUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_SignEncryptUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))
ON_SESSION(C_DecryptVerifyUpdate, (HANDLE, bytes in, size m, bytes out, sizes n), (SESSION, in, m, out, n))

ON_SESSION(C_GenerateKey, (HANDLE, how m, attributes a, size n, objects k), (SESSION, m, a, n, k))
ON_SESSION(C_GenerateKeyPair, (HANDLE, how m, attributes a, size i, attributes b, size j, objects k, objects l),
	   (SESSION, m, a, i, b, j, k, l))
ON_SESSION(C_WrapKey, (HANDLE, how m, object by, object k, bytes out, sizes n), (SESSION, m, by, k, out, n))
ON_SESSION(C_UnwrapKey, (HANDLE, how m, object by, bytes in, size i, attributes a, size n, objects k),
	   (SESSION, m, by, in, i, a, n, k))
ON_SESSION(C_DeriveKey, (HANDLE, how m, object k, attributes a, size n, objects o), (SESSION, m, k, a, n, o))
ON_SESSION(C_SeedRandom, (HANDLE, bytes in, size m), (SESSION, in, m))
ON_SESSION(C_GenerateRandom, (HANDLE, bytes out, size n), (SESSION, out, n))
ON_SESSION(C_GetFunctionStatus, (HANDLE), (SESSION))
ON_SESSION(C_CancelFunction, (HANDLE), (SESSION))

CK_FUNCTION_LIST functions = {
	{2, 40},
#define CK_PKCS11_FUNCTION_INFO(name) name,
#include "pkcs11f.h"
#undef CK_PKCS11_FUNCTION_INFO
};
