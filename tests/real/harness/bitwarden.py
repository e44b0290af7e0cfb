"""A stand-in for a Bitwarden server: one account that the real `bw` can log in to, in an organization with one collection, and
a vault that keeps what it is sent. It never sees a plain secret: the client encrypts, as with any server (Bitwarden's security
white paper, "Overview of the Master Password Hashing, Key Derivation, and Encryption Process")."""

import base64
import hashlib
import hmac
import json
import os
import time
import uuid
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes, padding, serialization
from cryptography.hazmat.primitives.asymmetric import padding as rsa_padding
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

EMAIL, PASSWORD = "admin@lab.test", "correct horse battery staple"
# The least that the client takes: how long guessing takes is not what is tested.
ITERATIONS = 5000
DATE = "2026-11-22T10:00:00.0000000Z"


def _base64(data):
    return base64.b64encode(data).decode()


def _sealed(key, data):
    """AES-256-CBC with HMAC-SHA-256 as the client writes it, `2.<iv>|<text>|<mac>`; `key` is 64 bytes."""
    iv, padder = os.urandom(16), padding.PKCS7(128).padder()
    cipher = Cipher(algorithms.AES(key[:32]), modes.CBC(iv)).encryptor()
    text = cipher.update(padder.update(data) + padder.finalize()) + cipher.finalize()
    return "2." + "|".join(map(_base64, (iv, text, hmac.digest(key[32:], iv + text, "sha256"))))


class Vault:
    """The account and its items. `answer` is what a stand-in for HTTP answers with."""

    def __init__(self):
        self.user, self.organization, self.collection = (str(uuid.uuid4()) for _ in range(3))
        self.items = {}
        master = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), EMAIL.encode(), ITERATIONS)
        self._login = _base64(hashlib.pbkdf2_hmac("sha256", master, PASSWORD.encode(), 1))
        stretched = b"".join(HKDFExpand(hashes.SHA256(), 32, info).derive(master) for info in (b"enc", b"mac"))
        user_key, organization_key = os.urandom(64), os.urandom(64)
        pair, der = rsa.generate_private_key(65537, 2048), serialization.Encoding.DER
        private = pair.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        public = pair.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo)
        oaep = rsa_padding.OAEP(rsa_padding.MGF1(hashes.SHA1()), hashes.SHA1(), None)
        self._key = _sealed(stretched, user_key)
        self._pair = {"wrappedPrivateKey": _sealed(user_key, private), "publicKey": _base64(public)}
        self._organization_key = "4." + _base64(pair.public_key().encrypt(organization_key, oaep))
        self._collection_name = _sealed(organization_key, b"FetchML")

    def answer(self, out, seen):
        """Answers one request, or 404 where this server does not play it."""
        played = {
            ("POST", "/identity/accounts/prelogin/password"): lambda: {"kdf": 0, "kdfIterations": ITERATIONS},
            ("POST", "/identity/connect/token"): lambda: self._token(parse_qs(seen.body.decode())),
            ("GET", "/api/config"): lambda: {"version": "2026.6.0", "featureStates": {}},
            ("GET", "/api/accounts/revision-date"): lambda: int(time.time() * 1000),
            ("GET", "/api/sync"): self._sync,
            ("POST", "/api/ciphers"): lambda: self._keep(json.loads(seen.body)),
            ("POST", "/api/ciphers/create"): lambda: self._share(json.loads(seen.body)),
            ("POST", "/api/ciphers/import"): lambda: [self._keep(item) for item in json.loads(seen.body)["ciphers"]],
        }
        folder, _, name = seen.path.rpartition("/")
        if (seen.method, folder) == ("PUT", "/api/ciphers") and name in self.items:
            played[("PUT", seen.path)] = lambda: self._keep(json.loads(seen.body), name)
        play = played.get((seen.method, seen.path))
        answer = play and play()
        out.send(200 if answer is not None else 404, json.dumps(answer or {"message": "not played here"}))

    def _unlock(self):
        return {"salt": EMAIL, "kdf": {"kdfType": 0, "iterations": ITERATIONS}, "masterKeyEncryptedUserKey": self._key}

    def _token(self, form):
        # A refresh is always granted.
        if form["grant_type"] == ["password"] and form["password"] != [self._login]:
            return None
        now = int(time.time())
        claims = {"sub": self.user, "email": EMAIL, "email_verified": True, "nbf": now - 60, "exp": now + 3600}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({"alg": "none"}, claims, 0)]
        return {
            "access_token": ".".join(parts),
            "expires_in": 3600,
            "token_type": "Bearer",
            "refresh_token": "again",
            "Key": self._key,
            "PrivateKey": self._pair["wrappedPrivateKey"],
            "AccountKeys": {"publicKeyEncryptionKeyPair": self._pair},
            "Kdf": 0,
            "KdfIterations": ITERATIONS,
            "UserDecryptionOptions": {"HasMasterPassword": True, "MasterPasswordUnlock": self._unlock()},
        }

    def _sync(self):
        member = {"id": self.organization, "name": "lab", "key": self._organization_key, "status": 2, "type": 0, "enabled": True}
        collection = {"id": self.collection, "organizationId": self.organization, "name": self._collection_name, "manage": True}
        profile = {
            "id": self.user,
            "email": EMAIL,
            "emailVerified": True,
            "key": self._key,
            "privateKey": self._pair["wrappedPrivateKey"],
            "accountKeys": {"publicKeyEncryptionKeyPair": self._pair},
            "securityStamp": "1",
            "organizations": [member | {"permissions": {}}],
        }
        return {
            "profile": profile,
            "folders": [],
            "collections": [collection],
            "ciphers": list(self.items.values()),
            "policies": [],
            "sends": [],
            "userDecryption": {"masterPasswordUnlock": self._unlock()},
        }

    def _keep(self, sent, name=None, collections=()):
        collections = self.items[name]["collectionIds"] if name else collections
        name = name or str(uuid.uuid4())
        dates = {"creationDate": DATE, "revisionDate": DATE, "deletedDate": None}
        rights = {"edit": True, "viewPassword": True, "permissions": {"delete": True, "restore": True}}
        more = {"id": name, "collectionIds": list(collections), "attachments": None, "organizationUseTotp": False}
        self.items[name] = sent | dates | rights | more
        return self.items[name]

    def _share(self, sent):
        return self._keep(sent["cipher"], collections=sent["collectionIds"])
