/*
 * rest_jwt.c
 *	  JSON Web Tokens: HS256, RS256 and ES256, and nothing else.
 *
 * Which algorithm a key is for is the key's to say, never the token's, so that a
 * public key can't be taken for a shared secret.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "rest_internal.h"

#define MAX_TOKEN	8192
#define MAX_KEYS	64
#define MAX_FILE	(1024 * 1024)
#define LEEWAY		30			/* seconds that clocks may differ by */
#define LEAST_SECRET 32			/* bytes; RFC 7518, 3.2 */
#define LEAST_RSA	2048		/* bits; RFC 7518, 3.3 */

typedef enum Algorithm
{
	ALG_NONE,
	ALG_HS256,
	ALG_RS256,
	ALG_ES256
} Algorithm;

typedef struct JwtKey
{
	Algorithm	algorithm;
	char	   *id;				/* NULL: it has none */
	EVP_PKEY   *public;
	unsigned char *secret;
	size_t		secret_length;
} JwtKey;

struct JwtKeys
{
	int			count;
	JwtKey		keys[MAX_KEYS];
};

/* ---- base64url */

static int
digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '-' ? 62 : c == '_' ? 63 : -1;
}

/*
 * What such a text means, ended by a '\0' that does not count; NULL where it is
 * none.  Bits that mean nothing must be 0, so that a value has one text.
 */
static unsigned char *
decode(const char *text, size_t length, size_t *decoded)
{
	unsigned char *bytes;
	unsigned int bits = 0;
	int			count = 0;

	if (length % 4 == 1)
		return NULL;
	bytes = malloc(length * 3 / 4 + 1);
	if (bytes == NULL)
		return NULL;
	*decoded = 0;
	for (size_t i = 0; i < length; i++)
	{
		int			digit = digit_of(text[i]);

		if (digit < 0)
		{
			free(bytes);
			return NULL;
		}
		bits = bits << 6 | (unsigned int) digit;
		count += 6;
		if (count >= 8)
		{
			count -= 8;
			bytes[(*decoded)++] = (unsigned char) (bits >> count & 0xFF);
		}
	}
	if ((bits & ((1u << count) - 1)) != 0)
	{
		free(bytes);
		return NULL;
	}
	bytes[*decoded] = '\0';
	return bytes;
}

/* ---- keys */

static JwtKey *
add_key(JwtKeys *keys, Algorithm algorithm, const char *id)
{
	JwtKey	   *key;

	if (keys->count == MAX_KEYS)
		return NULL;
	key = &keys->keys[keys->count++];
	key->algorithm = algorithm;
	key->id = id != NULL ? strdup(id) : NULL;
	return key;
}

/* What such a key is good for; ALG_NONE: nothing here. */
static Algorithm
algorithm_of(EVP_PKEY *key)
{
	char		group[40];
	size_t		length;

	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA && EVP_PKEY_get_bits(key) >= LEAST_RSA)
		return ALG_RS256;
	if (EVP_PKEY_get_base_id(key) == EVP_PKEY_EC &&
		EVP_PKEY_get_group_name(key, group, sizeof(group), &length) == 1 && strcmp(group, "prime256v1") == 0)
		return ALG_ES256;
	return ALG_NONE;
}

/* A public key of its parts. */
static EVP_PKEY *
build_key(const char *type, OSSL_PARAM_BLD *parts)
{
	OSSL_PARAM *parameters = OSSL_PARAM_BLD_to_param(parts);
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	EVP_PKEY   *key = NULL;

	if (parameters == NULL || context == NULL || EVP_PKEY_fromdata_init(context) != 1 ||
		EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, parameters) != 1)
		key = NULL;
	EVP_PKEY_CTX_free(context);
	OSSL_PARAM_free(parameters);
	return key;
}

/* A member of a key, decoded; NULL: it lacks it. */
static unsigned char *
member(json_t *object, const char *name, size_t *length)
{
	json_t	   *value = json_object_get(object, name);

	return json_is_string(value) ? decode(json_string_value(value), json_string_length(value), length) : NULL;
}

static EVP_PKEY *
rsa_of_jwk(json_t *jwk)
{
	size_t		n_length = 0;
	size_t		e_length = 0;
	unsigned char *n = member(jwk, "n", &n_length);
	unsigned char *e = member(jwk, "e", &e_length);
	OSSL_PARAM_BLD *parts = OSSL_PARAM_BLD_new();
	BIGNUM	   *modulus = n != NULL && n_length <= 1024 ? BN_bin2bn(n, (int) n_length, NULL) : NULL;
	BIGNUM	   *exponent = e != NULL && e_length <= 8 ? BN_bin2bn(e, (int) e_length, NULL) : NULL;
	EVP_PKEY   *key = NULL;

	if (parts != NULL && modulus != NULL && exponent != NULL &&
		OSSL_PARAM_BLD_push_BN(parts, OSSL_PKEY_PARAM_RSA_N, modulus) == 1 &&
		OSSL_PARAM_BLD_push_BN(parts, OSSL_PKEY_PARAM_RSA_E, exponent) == 1)
		key = build_key("RSA", parts);
	BN_free(modulus);
	BN_free(exponent);
	OSSL_PARAM_BLD_free(parts);
	free(n);
	free(e);
	return key;
}

static EVP_PKEY *
ec_of_jwk(json_t *jwk)
{
	const char *curve = json_string_value(json_object_get(jwk, "crv"));
	size_t		x_length = 0;
	size_t		y_length = 0;
	unsigned char *x = member(jwk, "x", &x_length);
	unsigned char *y = member(jwk, "y", &y_length);
	OSSL_PARAM_BLD *parts = OSSL_PARAM_BLD_new();
	unsigned char point[65] = {POINT_CONVERSION_UNCOMPRESSED};
	EVP_PKEY   *key = NULL;

	if (parts != NULL && curve != NULL && strcmp(curve, "P-256") == 0 && x != NULL && y != NULL &&
		x_length == 32 && y_length == 32)
	{
		memcpy(point + 1, x, 32);
		memcpy(point + 33, y, 32);
		if (OSSL_PARAM_BLD_push_utf8_string(parts, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0) == 1 &&
			OSSL_PARAM_BLD_push_octet_string(parts, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point)) == 1)
			key = build_key("EC", parts);
	}
	OSSL_PARAM_BLD_free(parts);
	free(x);
	free(y);
	return key;
}

/* Keys of other kinds, and for other uses, are passed by. */
static void
add_jwk(JwtKeys *keys, json_t *jwk)
{
	const char *type = json_string_value(json_object_get(jwk, "kty"));
	const char *use = json_string_value(json_object_get(jwk, "use"));
	const char *id = json_string_value(json_object_get(jwk, "kid"));
	EVP_PKEY   *public = NULL;
	JwtKey	   *key = NULL;

	if (type == NULL || (use != NULL && strcmp(use, "sig") != 0))
		return;
	if (strcmp(type, "oct") == 0)
	{
		size_t		length = 0;
		unsigned char *secret = member(jwk, "k", &length);

		if (secret != NULL && length >= LEAST_SECRET)
			key = add_key(keys, ALG_HS256, id);
		if (key == NULL)
		{
			free(secret);
			return;
		}
		key->secret = secret;
		key->secret_length = length;
		return;
	}
	if (strcmp(type, "RSA") == 0)
		public = rsa_of_jwk(jwk);
	else if (strcmp(type, "EC") == 0)
		public = ec_of_jwk(jwk);
	if (public != NULL && algorithm_of(public) != ALG_NONE)
		key = add_key(keys, algorithm_of(public), id);
	if (key != NULL)
		key->public = public;
	else
		EVP_PKEY_free(public);
}

static bool
add_jwks(JwtKeys *keys, const char *text, size_t length, char **why)
{
	json_t	   *document = json_loadb(text, length, JSON_REJECT_DUPLICATES, NULL);
	json_t	   *list = json_object_get(document, "keys");
	json_t	   *jwk;
	size_t		i;

	json_array_foreach(list, i, jwk)
		add_jwk(keys, jwk);
	json_decref(document);
	if (keys->count > 0)
		return true;
	*why = strdup("the set has no key for HS256, RS256 or ES256");
	return false;
}

/* A public key in PEM, or else a shared secret. */
static bool
add_key_text(JwtKeys *keys, const char *text, size_t length, char **why)
{
	JwtKey	   *key;

	if (length >= 10 && memcmp(text, "-----BEGIN", 10) == 0)
	{
		BIO		   *bio = BIO_new_mem_buf(text, (int) length);
		EVP_PKEY   *public = PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL);

		BIO_free(bio);
		if (public == NULL || algorithm_of(public) == ALG_NONE)
		{
			EVP_PKEY_free(public);
			*why = strdup("it is no public key for RS256 (2048 bits at least) or ES256");
			return false;
		}
		key = add_key(keys, algorithm_of(public), NULL);
		key->public = public;
		return true;
	}
	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r'))
		length--;
	if (length < LEAST_SECRET)
	{
		*why = strdup("a secret for HS256 has 32 bytes at least");
		return false;
	}
	key = add_key(keys, ALG_HS256, NULL);
	key->secret = malloc(length);
	if (key->secret == NULL)
		return false;
	memcpy(key->secret, text, length);
	key->secret_length = length;
	return true;
}

void
jwt_keys_free(JwtKeys *keys)
{
	if (keys == NULL)
		return;
	for (int i = 0; i < keys->count; i++)
	{
		free(keys->keys[i].id);
		EVP_PKEY_free(keys->keys[i].public);
		if (keys->keys[i].secret != NULL)
			OPENSSL_cleanse(keys->keys[i].secret, keys->keys[i].secret_length);
		free(keys->keys[i].secret);
	}
	free(keys);
}

/*
 * Keys of a text of either kind, each of which may be NULL.  NULL, and why not,
 * to be freed.
 */
JwtKeys *
jwt_keys_of(const char *key, size_t key_length, const char *jwks, size_t jwks_length, char **why)
{
	JwtKeys    *keys = calloc(1, sizeof(JwtKeys));

	if (keys != NULL && (key == NULL || add_key_text(keys, key, key_length, why)) &&
		(jwks == NULL || add_jwks(keys, jwks, jwks_length, why)))
		return keys;
	jwt_keys_free(keys);
	return NULL;
}

static char *
read_file(const char *path, size_t *length, char **why)
{
	FILE	   *file = fopen(path, "rb");
	char	   *data = file != NULL ? malloc(MAX_FILE) : NULL;

	*length = data != NULL ? fread(data, 1, MAX_FILE, file) : 0;
	if (data == NULL || ferror(file))
	{
		*why = strdup(strerror(errno));
		free(data);
		data = NULL;
	}
	if (file != NULL)
		fclose(file);
	return data;
}

/*
 * Keys of files, each of which may be NULL; fetched is a set that is none.
 */
JwtKeys *
jwt_keys_read(const char *key_file, const char *jwks_file, const Text *fetched, char **why)
{
	size_t		key_length = 0;
	size_t		jwks_length = 0;
	char	   *key = key_file != NULL ? read_file(key_file, &key_length, why) : NULL;
	char	   *jwks = jwks_file != NULL ? read_file(jwks_file, &jwks_length, why) : NULL;
	JwtKeys    *keys = NULL;

	if ((key_file == NULL || key != NULL) && (jwks_file == NULL || jwks != NULL))
		keys = jwt_keys_of(key, key_length, jwks_file != NULL ? jwks : fetched->data,
						   jwks_file != NULL ? jwks_length : fetched->length, why);
	free(key);
	free(jwks);
	return keys;
}

/* ---- signatures */

static bool
verify_public(EVP_PKEY *key, const char *text, size_t length, const unsigned char *signature, size_t signature_length)
{
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	bool		fits = context != NULL &&
		EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
		EVP_DigestVerify(context, signature, signature_length, (const unsigned char *) text, length) == 1;

	EVP_MD_CTX_free(context);
	return fits;
}

/* Of ES256 the token has two numbers, where the library wants them in DER. */
static bool
verify_es256(EVP_PKEY *key, const char *text, size_t length, const unsigned char *signature, size_t signature_length)
{
	ECDSA_SIG  *numbers = ECDSA_SIG_new();
	BIGNUM	   *r = NULL;
	BIGNUM	   *s = NULL;
	unsigned char *der = NULL;
	int			der_length = 0;
	bool		fits = false;

	if (numbers != NULL && signature_length == 64)
	{
		r = BN_bin2bn(signature, 32, NULL);
		s = BN_bin2bn(signature + 32, 32, NULL);
		if (r != NULL && s != NULL && ECDSA_SIG_set0(numbers, r, s) == 1)
		{
			der_length = i2d_ECDSA_SIG(numbers, &der);
			fits = der_length > 0 && verify_public(key, text, length, der, (size_t) der_length);
		}
		else
		{
			BN_free(r);
			BN_free(s);
		}
	}
	OPENSSL_free(der);
	ECDSA_SIG_free(numbers);
	return fits;
}

static bool
verify(const JwtKey *key, const char *text, size_t length, const unsigned char *signature, size_t signature_length)
{
	unsigned char own[EVP_MAX_MD_SIZE];
	unsigned int own_length = 0;

	switch (key->algorithm)
	{
		case ALG_HS256:
			return HMAC(EVP_sha256(), key->secret, (int) key->secret_length, (const unsigned char *) text, length,
						own, &own_length) != NULL &&
				own_length == signature_length && CRYPTO_memcmp(own, signature, own_length) == 0;
		case ALG_RS256:
			return verify_public(key->public, text, length, signature, signature_length);
		case ALG_ES256:
			return verify_es256(key->public, text, length, signature, signature_length);
		case ALG_NONE:
			break;
	}
	return false;
}

/*
 * Whether one of the keys that its header allows has signed the token.
 * lacks_key: there is none of the id that it names, or at all.
 */
static bool
is_signed(const JwtKeys *keys, json_t *header, const char *text, size_t length,
		  const unsigned char *signature, size_t signature_length, bool *lacks_key, const char **why)
{
	const char *name = json_string_value(json_object_get(header, "alg"));
	const char *id = json_string_value(json_object_get(header, "kid"));
	Algorithm	algorithm = name == NULL ? ALG_NONE : strcmp(name, "HS256") == 0 ? ALG_HS256 :
		strcmp(name, "RS256") == 0 ? ALG_RS256 : strcmp(name, "ES256") == 0 ? ALG_ES256 : ALG_NONE;

	*why = "The token's algorithm is none of HS256, RS256 and ES256.";
	if (algorithm == ALG_NONE)
		return false;
	*why = "The token has a header that must be understood and is not.";
	if (json_object_get(header, "crit") != NULL)
		return false;
	*why = "The token's signature is wrong.";
	*lacks_key = true;
	for (int i = 0; i < keys->count; i++)
	{
		const JwtKey *key = &keys->keys[i];

		if (key->algorithm == algorithm && (id == NULL || (key->id != NULL && strcmp(id, key->id) == 0)))
			*lacks_key = false;
		if (key->algorithm == algorithm && (id == NULL || key->id == NULL || strcmp(id, key->id) == 0) &&
			verify(key, text, length, signature, signature_length))
		{
			*lacks_key = false;
			return true;
		}
	}
	return false;
}

/* ---- claims */

static bool
is_for(json_t *audience, const char *wanted)
{
	json_t	   *one;
	size_t		i;

	if (json_is_string(audience))
		return strcmp(json_string_value(audience), wanted) == 0;
	json_array_foreach(audience, i, one)
		if (json_is_string(one) && strcmp(json_string_value(one), wanted) == 0)
			return true;
	return false;
}

static const char *
check_claims(json_t *claims, const JwtRules *rules)
{
	json_t	   *expires = json_object_get(claims, "exp");
	json_t	   *begins = json_object_get(claims, "nbf");
	json_t	   *issuer = json_object_get(claims, "iss");

	if (!json_is_number(expires))
		return "The token does not say when it expires.";
	if (json_number_value(expires) + LEEWAY <= (double) rules->now)
		return "The token has expired.";
	if (begins != NULL && (!json_is_number(begins) || json_number_value(begins) - LEEWAY > (double) rules->now))
		return "The token is not valid yet.";
	if (rules->issuer != NULL && (!json_is_string(issuer) || strcmp(json_string_value(issuer), rules->issuer) != 0))
		return "The token is of another issuer.";
	if (rules->audience != NULL && !is_for(json_object_get(claims, "aud"), rules->audience))
		return "The token is for another audience.";
	return NULL;
}

static json_t *
decode_object(const char *text, size_t length)
{
	size_t		decoded;
	unsigned char *bytes = decode(text, length, &decoded);
	json_t	   *value = bytes != NULL ? json_loadb((char *) bytes, decoded, JSON_REJECT_DUPLICATES, NULL) : NULL;

	free(bytes);
	if (json_is_object(value))
		return value;
	json_decref(value);
	return NULL;
}

/*
 * The role that a token is for, to be freed; NULL, and why not.  lacks_key: it may
 * be good, by a key that is not there.
 */
char *
jwt_role(const JwtKeys *keys, const JwtRules *rules, const char *token, bool *lacks_key, const char **why)
{
	const char *first = strchr(token, '.');
	const char *second = first != NULL ? strchr(first + 1, '.') : NULL;
	size_t		signature_length = 0;
	unsigned char *signature = NULL;
	json_t	   *header = NULL;
	json_t	   *claims = NULL;
	json_t	   *role;
	char	   *found = NULL;

	*lacks_key = false;
	*why = "The token is malformed.";
	if (second != NULL && strlen(token) <= MAX_TOKEN)
	{
		header = decode_object(token, (size_t) (first - token));
		claims = decode_object(first + 1, (size_t) (second - first - 1));
		signature = decode(second + 1, strlen(second + 1), &signature_length);
	}
	if (header != NULL && claims != NULL && signature != NULL &&
		is_signed(keys, header, token, (size_t) (second - token), signature, signature_length, lacks_key, why) &&
		(*why = check_claims(claims, rules)) == NULL)
	{
		*why = "The token names no role.";
		role = json_object_get(claims, rules->role_claim);
		if (json_is_string(role) && json_string_length(role) > 0 && json_string_length(role) < 64 &&
			strlen(json_string_value(role)) == json_string_length(role))
			found = strdup(json_string_value(role));
	}
	free(signature);
	json_decref(header);
	json_decref(claims);
	return found;
}
