"""Signs or verifies a mail with dkimpy: dkim_mail.py sign|verify KEYFILE MAIL [OUT]"""

import base64
import subprocess
import sys

import dkim

command, key_path, mail_path = sys.argv[1:4]
with open(mail_path, "rb") as file:
    mail = file.read()
with open(key_path, "rb") as file:
    key = file.read()
if command == "sign":
    fields = [b"from", b"to", b"subject", b"date", b"message-id"]
    signature = dkim.sign(mail, b"test", b"app.test", key, include_headers=fields)
    with open(sys.argv[4], "wb") as file:
        file.write(signature + mail)
else:
    der = subprocess.run(
        ["openssl", "pkey", "-in", key_path, "-pubout", "-outform", "DER"],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    good = dkim.verify(mail, dnsfunc=lambda name, timeout=5: record)
    print("good" if good else "bad")
    sys.exit(0 if good else 1)
