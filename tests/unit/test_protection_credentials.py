"""What an attacker presents: certificates and tokens, each wrong in the one thing that it is named for."""

from __future__ import annotations

import base64
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.support.mesh_samples import placement

from meshwise.mesh import tokens
from meshwise.mesh.identity import CertificateForm
from meshwise.mesh.istio.workloads import WorkloadIdentities
from meshwise.mesh.linkerd import outsiders
from meshwise.mesh.linkerd.authority import make_authority
from meshwise.mesh.protection.credentials import DIRECTORY, Credential
from meshwise.mesh.protection.tokens import Token
from meshwise.study.model import KeyType, MeshName

MESHES = (MeshName.ISTIO, MeshName.LINKERD)


def leaf_of(directory: Path, credential: Credential) -> x509.Certificate:
    return x509.load_pem_x509_certificates((directory / f"{credential}.chain.pem").read_bytes())[0]


@pytest.mark.parametrize("mesh", MESHES)
def test_every_credential_is_wrong_in_the_one_thing_that_it_is_named_for(
    mesh: MeshName, tmp_path: Path
) -> None:
    here = replace(placement(2, tmp_path), mesh=mesh)
    if mesh is MeshName.ISTIO:
        WorkloadIdentities().issue_all(here, CertificateForm(KeyType.ECDSA_P256), None)
    else:
        outsiders.issue(here, make_authority(here.trust_domain))
    directory, now = tmp_path / DIRECTORY, dt.datetime.now(dt.UTC)
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}
    lists = mesh is MeshName.ISTIO  # Linkerd's proxies read no list of revoked certificates
    leaves = {
        credential: leaf_of(directory, credential)
        for credential in Credential
        if lists or credential is not Credential.REVOKED
    }

    def name(credential: Credential) -> str:
        names = leaves[credential].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        (found,) = [*names.get_values_for_type(x509.UniformResourceIdentifier),
                    *names.get_values_for_type(x509.DNSName)]  # fmt: skip
        return str(found)

    good = leaves[Credential.CLIENT]
    issuer = good.issuer
    for credential, one in leaves.items():
        valid = one.not_valid_before_utc <= now <= one.not_valid_after_utc
        assert valid is (credential is not Credential.EXPIRED), credential
        by_the_authority = credential in (
            Credential.CLIENT, Credential.OTHER_ACCOUNT, Credential.OTHER_NAMESPACE,
            Credential.OTHER_SERVICE, Credential.EXPIRED, Credential.REVOKED,
        )  # fmt: skip
        signer = one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        assert by_the_authority is (
            signer == good.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
            and one.issuer == issuer
        ), credential
        same_name = credential in (
            Credential.CLIENT, Credential.FOREIGN_AUTHORITY, Credential.EXPIRED, Credential.SELF_SIGNED,
            Credential.BY_LEAF, Credential.REVOKED,
        )  # fmt: skip
        assert same_name is (name(credential) == name(Credential.CLIENT)), credential
    leaves[Credential.SELF_SIGNED].verify_directly_issued_by(leaves[Credential.SELF_SIGNED])
    with pytest.raises(InvalidSignature):
        good.public_key().verify(  # type: ignore[call-arg, union-attr]
            leaves[Credential.BY_LEAF].signature,
            leaves[Credential.BY_LEAF].tbs_certificate_bytes,
            ec.ECDSA(hashes.SHA256()),  # type: ignore[arg-type]
        )
    leaves[Credential.OTHER_SERVICE].public_key().verify(  # type: ignore[call-arg, union-attr]
        leaves[Credential.BY_LEAF].signature,
        leaves[Credential.BY_LEAF].tbs_certificate_bytes,
        ec.ECDSA(hashes.SHA256()),  # type: ignore[arg-type]
    )
    assert "elsewhere.example" in name(Credential.FOREIGN_DOMAIN)
    assert "node-2" in name(Credential.OTHER_SERVICE)


def test_every_wrong_token_differs_from_the_good_one_in_what_it_is_named_for() -> None:
    now_s = 1_800_000_000
    own = tokens.make_tokens(now_s)

    def parts(token: str) -> tuple[dict[str, object], dict[str, object], str]:
        head, body, signature = token.split(".")
        decoded = [json.loads(base64.urlsafe_b64decode(each + "==")) for each in (head, body)]
        return decoded[0], decoded[1], signature

    head, claims, _ = parts(own.valid)
    changed = {
        "not_yet_valid": {"nbf": now_s + tokens.VALID_FOR_S // 2},
        "altered": {},
        "other_audience": {"aud": "https://other.example"},
        "other_issuer": {"iss": "https://elsewhere.example"},
        "unsigned": {},
        "key_confusion": {},
    }
    assert set(own.attackers) == set(changed)
    for key, token in own.attackers.items():
        found_head, found, signature = parts(token)
        assert found == {**claims, **changed[key]}, key
        algorithm = {"unsigned": "none", "key_confusion": "HS256"}.get(key, "RS256")
        assert found_head == {**head, "alg": algorithm}
        assert bool(signature) is (key != "unsigned")
        signed = key in ("not_yet_valid", "other_audience", "other_issuer")
        assert (tokens.verify(token, own.jwks, now_s) is not None) is signed, key
    assert {str(token) for token in Token if token is not Token.NONE} == set(tokens.attackers_tokens())
