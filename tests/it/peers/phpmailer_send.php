<?php
// Sends a mail with PHPMailer: phpmailer_send.php PORT FROM TO SUBJECT OUT [CAFILE USER PASSWORD]
// and writes the mail as it was sent to OUT.
require '/usr/share/php/libphp-phpmailer/autoload.php';

[, $port, $from, $to, $subject, $out] = $argv;
$mail = new PHPMailer\PHPMailer\PHPMailer(true);
$mail->isSMTP();
$mail->Host = 'localhost';
$mail->Port = (int) $port;
if (isset($argv[6])) {
    $mail->SMTPSecure = PHPMailer\PHPMailer\PHPMailer::ENCRYPTION_STARTTLS;
    $mail->SMTPOptions = ['ssl' => ['cafile' => $argv[6], 'verify_peer_name' => true]];
    $mail->SMTPAuth = true;
    $mail->Username = $argv[7];
    $mail->Password = $argv[8];
} else {
    $mail->SMTPAutoTLS = false;
}
$mail->setFrom($from, 'Anna');
$mail->addAddress($to);
$mail->Subject = $subject;
$mail->MessageID = "<$subject@app.test>";
$mail->Body = "Hello.\r\n..dots\r\n.\r\n\r\nTr\xe4ger";
$mail->CharSet = 'iso-8859-1';
$mail->Encoding = '8bit';
$mail->send();
// It ends the data with a CRLF of its own.
file_put_contents($out, $mail->getSentMIMEMessage() . "\r\n");
