"""Explains S3's error codes: the cause in a sentence, and the remedy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import ClientError

DENIED = ("403", "AccessDenied", "Forbidden")
UNSUPPORTED = ("NotImplemented", "MethodNotAllowed", "405", "501")
WORDLESS = ("301", "400", "401", "403", "Forbidden", "Bad Request")
"""Codes of answers without a body, such as those of HEAD. Only another request gets the cause."""
EXPIRED_CODES = frozenset({
    "ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired",
})  # fmt: skip
TRANSIENT_CODES = EXPIRED_CODES | {
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "NoSuchUpload", "OperationAborted",
    "PriorRequestNotComplete", "RequestLimitExceeded", "RequestTimeout", "RequestTimeoutException",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
}  # fmt: skip
_NEEDED = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "AssumeRole": "sts:AssumeRole for the role role_arn, in its trust policy too,",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject (for old versions s3:DeleteObjectVersion)",
    "GetObject": "s3:GetObject",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "HeadBucket": "s3:ListBucket",
    "HeadObject": "s3:GetObject and s3:ListBucket (for old versions s3:GetObjectVersion, s3:GetObjectRetention and"
    " s3:GetObjectLegalHold)",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "UploadPart": "s3:PutObject",
}
_KEY = "The access key is not known"
_KEY_HINT = "Correct the access key (login) of the connection, or make it active again at the provider."
_EXPIRED_HINT = (
    "Put new temporary credentials into the connection, or use a role: the next try reads the connection again."
)
_REGION = "The bucket is in another region"
_LACKING = (
    'If the service lacks conditional writes (Backblaze B2), set "conditional_writes": false in the connection\'s '
    "extra. If it lacks encryption, set CLINIC_BACKUPS_SERVER_SIDE_ENCRYPTION=none."
)
_CAUSES: dict[str, tuple[str, str]] = {
    "AccountProblem": ("There is a problem with the account", "Ask the provider; the reason may be billing."),
    "AllAccessDisabled": ("Somebody has disabled all access to the bucket", "Ask the provider."),
    "IncompleteSignature": (
        "The service does not accept the request's signature",
        "Compare endpoint_url with the provider's documentation.",
    ),
    "InvalidAccessKeyId": (_KEY, _KEY_HINT),
    "InvalidClientTokenId": (_KEY, _KEY_HINT),
    "InvalidSecurity": ("The credentials are refused", "Correct login and password of the connection."),
    "InvalidToken": (
        "The session token is malformed, or belongs to other credentials",
        "Correct aws_session_token in the connection's extra; leave it out with lasting credentials.",
    ),
    "NotImplemented": ("The service does not support this request", _LACKING),
    "SignatureDoesNotMatch": (
        "The secret key does not belong to the access key",
        "Correct the secret key (password) of the connection. A proxy that changes headers has the same effect.",
    ),
    "UnrecognizedClientException": (_KEY, _KEY_HINT),
}
_CAUSES |= dict.fromkeys(EXPIRED_CODES, ("The temporary credentials have expired", _EXPIRED_HINT))
_REGION_CODES = ("301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")


def error_code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def cause_of(error: ClientError, *, kms: bool = False) -> tuple[str, str]:
    """The cause, a sentence without its full stop that may be empty, and the remedy.

    :param kms: objects are encrypted with a key of the key service, which has rights of its own.
    """
    code = error_code(error)
    if code in DENIED:
        needed = _NEEDED.get(error.operation_name, "s3:PutObject, GetObject, ListBucket, DeleteObject")
        key = " On the KMS key: kms:GenerateDataKey to write, kms:Decrypt to read." if kms else ""
        return f"The credentials are valid, but lack the right for {error.operation_name}", (
            f"Allow {needed} on the bucket: in the policies of the account, of the bucket and of its organization.{key}"
        )
    if code == "RequestTimeTooSkewed":
        here, there = _times(error)
        return f"This machine's clock says {here}, that of the service {there}", "Correct this machine's clock (NTP)."
    if code in _REGION_CODES:
        region = _region(error)
        named = f'"region_name": "{region}"' if region else "the bucket's region as region_name"
        return _REGION + (f", {region}" if region else ""), f"Set {named} in the connection's extra."
    return _CAUSES.get(code, ("", "Check the bucket, the connection and its permissions."))


def _times(error: ClientError) -> tuple[str, str]:
    """The clocks of this machine and of the service."""
    about: Any = error.response.get("Error", {})
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    here = str(about.get("RequestTime") or f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}")
    return here, str(about.get("ServerTime") or headers.get("date") or "another time")


def _region(error: ClientError) -> str:
    about: Any = error.response.get("Error", {})
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    found = str(about.get("Region") or headers.get("x-amz-bucket-region") or "")
    return found if found.replace("-", "").isalnum() else ""
