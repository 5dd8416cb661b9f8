#!/bin/sh
# Usage: expect_lost.sh kill|deadline|split COMMAND...   The command must end by itself, fail, and say why in one line.
what=$1
shift
output=$("$@" 2>&1)
code=$?
printf '%s\nexit code %s\n' "$output" "$code"
[ "$code" -ne 0 ] || { echo "a lost world ended with success"; exit 1; }
case $what in
  kill) wanted='lost a peer|signal 9' ;;
  deadline) wanted='chorale: rank [0-9]: the deadline passed while waiting for' ;;
  split) wanted='chorale: the split of a communicator did not finish in time' ;;
esac
printf '%s\n' "$output" | grep -Eq "$wanted" || { echo "no line says why"; exit 1; }
