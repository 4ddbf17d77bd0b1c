# shellcheck shell=bash disable=SC2034,SC2154  # options come from and go to the script that sources this
# Sourced by run.sh and by every step: reads --name value options into the variables declared above
# the line that sources this file. The script itself is the manual; its usage text is its own head:
#
#   #!/usr/bin/env bash
#   # What the script does.
#   # e.g.: steps/x.sh --nj 4 data/train exp/x
#   nj=2        # number of jobs                 <- option, default, meaning
#   # <data> <exp>                               <- the positional arguments; "# (no arguments)" for none
#
# An option that is not declared stops the script. true|false and whole numbers are checked against the
# default's kind. --name=value works too, and a boolean option alone means true.

script=$0
step_options=()   # names of the options, for the record of what was done
options_end=false arguments_line=
usage_options=() usage_head=()
while IFS= read -r line; do
  if [[ $line =~ ^"# ("|^"# <" ]]; then arguments_line=${line#\# }; options_end=true; break
  elif [[ $line =~ ^([a-z][a-z0-9_]*)=[^\#]*(\#\ (.*))?$ ]]; then
    name=${BASH_REMATCH[1]}; step_options+=("$name")
    usage_options+=("$(printf '  --%-22s %s (default: %s)' "${name//_/-}" "${BASH_REMATCH[3]}" "${!name}")")
  elif [[ $line =~ ^"# "(.*) ]]; then usage_head+=("${BASH_REMATCH[1]}")
  fi
done < "$script"
$options_end || { echo "$script: error: no line '# <argument> ...' ends its options" >&2; exit 1; }
arguments_line=${arguments_line/"(no arguments)"/}

usage() {
  printf '%s\n' "${usage_head[@]}" "Usage: $script [options] $arguments_line" "Options:" "${usage_options[@]}" >&2
}

bad_call() {  # message
  usage
  echo "$script: error: $1" >&2
  exit 1
}

script_call=("$script" "$@")
while [ $# -gt 0 ] && [[ $1 == --* ]]; do
  name=${1#--}; shift
  [ "$name" = help ] && { usage; exit 0; }
  given=false
  if [[ $name == *=* ]]; then value=${name#*=}; name=${name%%=*}; given=true; fi
  name=${name//-/_}
  [[ " ${step_options[*]-} " == *" $name "* ]] || bad_call "unknown option --${name//_/-}"
  default=${!name}
  if ! $given; then
    if [[ $default =~ ^(true|false)$ ]] && [[ $# -eq 0 || ${1-} != @(true|false) ]]; then value=true
    elif [ $# -eq 0 ]; then bad_call "option --${name//_/-} wants a value"
    else value=$1; shift
    fi
  fi
  if [[ $default =~ ^(true|false)$ && ! $value =~ ^(true|false)$ ]]; then
    bad_call "--${name//_/-} is '$value', wanted true or false"
  elif [[ $default =~ ^-?[0-9]+$ && ! $value =~ ^-?[0-9]+$ ]]; then
    bad_call "--${name//_/-} is '$value', wanted a whole number"
  fi
  printf -v "$name" %s "$value"
done

wanted=${arguments_line//[^<]/}
[ $# -eq ${#wanted} ] || bad_call "wanted ${#wanted} arguments ($arguments_line), got $#: $*"
unset line name value default given wanted options_end
