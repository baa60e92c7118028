"""Makes keys and JSON Web Tokens with another library than the server's: what it accepts is to be the standard's.

Writes keys.json (a JWK set), secret (a bare one) and cases.json into the folder given: [name, token, user or null].
"""

import base64
import json
import sys
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

folder, now = sys.argv[1], int(time.time())
encode = lambda data: base64.urlsafe_b64encode(data).rstrip(b"=").decode()
rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
other_rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ec_key = ec.generate_private_key(ec.SECP256R1())
secret, bare = b"0123456789abcdef0123456789abcdef", b"a bare secret of more than 32 bytes"


def public(algorithm, key, **more):
    return {**json.loads(algorithm.to_jwk(key)), **more}


keys = [
    public(jwt.algorithms.RSAAlgorithm, rsa_key.public_key(), kid="r", alg="RS256", use="sig"),
    public(jwt.algorithms.ECAlgorithm, ec_key.public_key(), kid="e"),
    {"kty": "oct", "k": encode(secret), "kid": "h"},
    public(jwt.algorithms.RSAAlgorithm, other_rsa.public_key(), kid="x", use="enc"),
]
json.dump({"keys": keys}, open(f"{folder}/keys.json", "w"))
open(f"{folder}/secret", "wb").write(bare + b"\n")

good = {"sub": "ada", "exp": now + 600, "iss": "https://id.example", "aud": "sluice"}
make = lambda claims, key, algorithm, **header: jwt.encode(claims, key, algorithm=algorithm, headers=header)
changed = lambda **more: {name: value for name, value in {**good, **more}.items() if value is not ...}
pem = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def by_hand(header, claims, signature=b""):
    return ".".join([encode(json.dumps(header).encode()), encode(json.dumps(claims).encode()), encode(signature)])


def confused():
    """Signed with the public key as if it were a secret (RFC 8725, 2.1)."""
    import hashlib
    import hmac

    text = by_hand({"alg": "HS256", "kid": "r"}, good)[:-1]
    return text + "." + encode(hmac.new(pem, text.encode(), hashlib.sha256).digest())


rs = lambda claims, **header: make(claims, rsa_key, "RS256", kid="r", **header)
valid = rs(good)
head, body, signature = valid.split(".")
cases = [
    ["RS256", valid, "ada"],
    ["ES256", make(good, ec_key, "ES256", kid="e"), "ada"],
    ["HS256", make(good, secret, "HS256", kid="h"), "ada"],
    ["no kid", make(good, ec_key, "ES256"), "ada"],
    ["aud among several", rs(changed(aud=["other", "sluice"])), "ada"],
    ["another user", rs(changed(sub="eve")), "eve"],
    ["within the leeway", rs(changed(exp=now - 5, nbf=now + 5)), "ada"],
    ["expired", rs(changed(exp=now - 60)), None],
    ["not yet", rs(changed(nbf=now + 600)), None],
    ["no end", rs(changed(exp=...)), None],
    ["an end that is a text", by_hand({"alg": "RS256", "kid": "r"}, changed(exp="never")), None],
    ["another issuer", rs(changed(iss="https://evil.example")), None],
    ["no issuer", rs(changed(iss=...)), None],
    ["another audience", rs(changed(aud="other")), None],
    ["no audience", rs(changed(aud=...)), None],
    ["no user", rs(changed(sub=...)), None],
    ["an empty user", rs(changed(sub="")), None],
    ["unknown kid", make(good, rsa_key, "RS256", kid="unknown"), None],
    ["another key under the name", make(good, other_rsa, "RS256", kid="r"), None],
    ["a key for encryption", make(good, other_rsa, "RS256", kid="x"), None],
    ["another algorithm of the key", make(good, rsa_key, "RS512", kid="r"), None],
    ["PS256", make(good, rsa_key, "PS256", kid="r"), None],
    ["none", by_hand({"alg": "none"}, good), None],
    ["none of the key's name", by_hand({"alg": "none", "kid": "r"}, good), None],
    ["None", by_hand({"alg": "None", "kid": "r"}, good, b"x"), None],
    ["no algorithm", by_hand({"kid": "r"}, good, b"x"), None],
    ["the public key as a secret", confused(), None],
    ["no signature", f"{head}.{body}.", None],
    ["other claims under the signature", f"{head}.{encode(json.dumps(changed(sub='root')).encode())}.{signature}", None],
    ["something critical", rs(good, crit=["x"], x=1), None],
    ["its own key", rs(good, jwk=public(jwt.algorithms.RSAAlgorithm, other_rsa.public_key())), "ada"],
    ["signed by the key it brings", make(good, other_rsa, "RS256", jwk=keys[3]), None],
    ["two dots", "..", None],
    ["junk", "a.b.c", None],
    ["huge", valid + "A" * 20000, None],
]
json.dump(cases, open(f"{folder}/cases.json", "w"))
json.dump([["bare", make(good, bare, "HS256"), "ada"], ["bare, with a kid", make(good, bare, "HS256", kid="x"), "ada"], ["other", make(good, secret, "HS256"), None]], open(f"{folder}/bare.json", "w"))
