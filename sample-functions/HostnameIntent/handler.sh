#!/bin/sh
# Answers an Alexa request with the name of the machine that it ran on.
cat >/dev/null # the request: every one gets the same answer
printf '{"version":"1.0","response":{"outputSpeech":{"type":"PlainText","text":"Your hostname is %s."},"shouldEndSession":true}}\n' "$(hostname)"
