"""What the codes mean that S3 answers with."""

from __future__ import annotations

from botocore.exceptions import ClientError

DENIED = ("403", "AccessDenied", "Forbidden")
UNSUPPORTED = ("NotImplemented", "MethodNotAllowed", "405", "501")
TRANSIENT_CODES = frozenset({
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "NoSuchUpload", "OperationAborted",
    "PriorRequestNotComplete", "RequestLimitExceeded", "RequestTimeout", "RequestTimeoutException",
    "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests",
})  # fmt: skip
_RIGHTS = (
    "Allow s3:PutObject, GetObject, ListBucket, DeleteObject and AbortMultipartUpload on the bucket; "
    "where it keeps versions, GetObjectVersion, GetObjectRetention, GetObjectLegalHold and DeleteObjectVersion too."
)
_RIGHTS_FOR = {
    "GetObjectLockConfiguration": "Allow s3:GetBucketObjectLockConfiguration on the bucket.",
    "ListMultipartUploads": "Allow s3:ListBucketMultipartUploads on the bucket.",
    "ListObjectVersions": "Allow s3:ListBucketVersions on the bucket.",
}
_REGION = "Set the bucket's region as region_name in the connection's extra."
_LACKING = (
    'Where conditional writes are missing (Backblaze B2), set "conditional_writes": false in the connection\'s extra; '
    "where encryption is, set CLINIC_BACKUPS_SERVER_SIDE_ENCRYPTION=none."
)
_HINTS = {
    "301": _REGION,
    "403": _RIGHTS,
    "AccessDenied": _RIGHTS,
    "AuthorizationHeaderMalformed": _REGION,
    "ExpiredToken": "The temporary credentials have run out; get new ones.",
    "Forbidden": _RIGHTS,
    "IllegalLocationConstraintException": _REGION,
    "InvalidAccessKeyId": "Correct the access key (login) of the connection.",
    "NotImplemented": _LACKING,
    "PermanentRedirect": _REGION,
    "RequestTimeTooSkewed": "Correct this machine's clock.",
    "SignatureDoesNotMatch": "Correct the secret key (password) of the connection.",
}


def error_code(error: Exception) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def hint_for(error: ClientError) -> str:
    code = error_code(error)
    if code in DENIED and error.operation_name in _RIGHTS_FOR:
        return _RIGHTS_FOR[error.operation_name]
    return _HINTS.get(code, "Check the bucket, the connection and its permissions.")
