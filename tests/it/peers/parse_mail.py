"""Reads a mail with Python's email package: parse_mail.py FILE; JSON on standard output"""

import base64
import email
import email.policy
import json
import sys

with open(sys.argv[1], "rb") as file:
    mail = email.message_from_binary_file(file, policy=email.policy.default)

parts = [
    {
        "type": part.get_content_type(),
        "disposition": part.get_content_disposition(),
        "filename": part.get_filename(),
        "cid": part["Content-ID"],
        "content": base64.b64encode(part.get_payload(decode=True)).decode(),
    }
    for part in mail.walk()
    if not part.is_multipart()
]
headers = {name: str(mail[name]) for name in ("From", "To", "Cc", "Subject", "Date", "Message-ID")}
defects = [str(defect) for part in mail.walk() for defect in part.defects]
print(json.dumps({"headers": headers, "parts": parts, "defects": defects, "bcc": mail["Bcc"]}))
