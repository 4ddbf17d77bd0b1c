# shellcheck shell=bash disable=SC2034,SC2154  # the sourcing script declares and uses the options
# Sourced by run.sh and by every step: reads --name value options into the variables declared above
# the line that sources this file. The head of the script is its usage text:
#
#   #!/usr/bin/env bash
#   # What the script does.
#   # e.g.: steps/x.sh --nj 4 data/train exp/x
#   nj=2        # number of jobs                 <- option, default, meaning
#   # <data> <exp>                               <- the positional arguments; "# (no arguments)" for none
#
# An undeclared option stops the script. The default decides which values are allowed. If it is true or false: these two;
# if 1: whole numbers from 0; if 0.5: shares from 0 to 1; if +0.5: any number. --name=value works too. A boolean option
# without a value means true. If an option is given twice, the last value counts; the values of --set are joined.

if [ "${BASH_VERSINFO[0]}" -lt 4 ]; then
  echo "$0: error: bash ${BASH_VERSION} is too old, wanted 4 or later; install one and call it by name: /path/to/bash $0" >&2
  exit 1
fi

unset CDPATH  # with CDPATH, cd may change to another folder and print its name
script=$0
step_options=()   # names of the options, for the step's record
parse_wanted=none parse_usage=() parse_head=()
while IFS= read -r parse_line; do
  if [[ $parse_line =~ ^"# ("|^"# <" ]]; then parse_wanted=${parse_line#\# }; break
  elif [[ $parse_line =~ ^([a-z][a-z0-9_]*)=[^\#]*(\#\ (.*))?$ ]]; then
    parse_name=${BASH_REMATCH[1]}; step_options+=("$parse_name")
    parse_usage+=("$(printf '  --%-22s %s (default: %s)' "${parse_name//_/-}" "${BASH_REMATCH[3]}" "${!parse_name}")")
  elif [[ $parse_line =~ ^"# "(.*) && $parse_line != "# shellcheck "* ]]; then parse_head+=("${BASH_REMATCH[1]}")
  fi
done < "$script"
[ "$parse_wanted" != none ] || { echo "$script: error: no line '# <argument> ...' ends its options" >&2; exit 1; }
parse_wanted=${parse_wanted/"(no arguments)"/}

usage() {
  printf '%s\n' "${parse_head[@]}" "Usage: $script [options] $parse_wanted" "Options:" "${parse_usage[@]}" >&2
  ! declare -F more_usage > /dev/null || more_usage >&2  # a script may define it
}

bad_call() {  # message
  usage
  echo "$script: error: $1" >&2
  exit 1
}

# Prints words as a user would type them in a shell.
as_typed() {  # word ...
  local word
  for word in "$@"; do
    case $word in
      *\'*) printf '%q ' "$word" ;;
      "" | *[!A-Za-z0-9_./:=,+@%-]*) printf "'%s' " "$word" ;;
      *) printf '%s ' "$word" ;;
    esac
  done
}

# Whether a path holds JOB, which launchers replace by a job's number, or characters that line-based tables cannot hold.
parse_bad_path() {  # path
  [[ $1 == *[$'\t\r\n']* || $1 =~ (^|[^A-Za-z0-9_])JOB([^A-Za-z0-9_]|$) ]]
}
parse_why_bad="has a tab, a line end, or the word JOB, which stands for a job's number; name another"

script_call=("$script" "$@") parse_named=" "   # names of the options given on the command line
for parse_value in "$@"; do
  ! parse_bad_path "$parse_value" || bad_call "$(printf '%q' "$parse_value") $parse_why_bad"
done
while [ $# -gt 0 ] && [[ $1 == --* ]]; do
  parse_name=${1#--}; shift
  [ "$parse_name" = help ] && { usage; exit 0; }
  parse_given=false
  if [[ $parse_name == *=* ]]; then parse_value=${parse_name#*=}; parse_name=${parse_name%%=*}; parse_given=true; fi
  parse_option=--$parse_name parse_name=${parse_name//-/_}
  [[ " ${step_options[*]-} " == *" $parse_name "* ]] || bad_call "unknown option $parse_option"
  parse_default=${!parse_name}
  if ! $parse_given; then
    if [[ $parse_default =~ ^(true|false)$ && ${1-} != @(true|false) ]]; then parse_value=true
    elif [ $# -eq 0 ]; then bad_call "option $parse_option needs a value"
    else parse_value=$1; shift
    fi
  fi
  if [[ $parse_default =~ ^(true|false)$ && ! $parse_value =~ ^(true|false)$ ]]; then
    bad_call "$parse_option is '$parse_value', wanted true or false"
  elif [[ $parse_default =~ ^[0-9]+$ ]]; then
    [[ $parse_value =~ ^[0-9]{1,9}$ ]] || bad_call "$parse_option is '$parse_value', wanted a whole number from 0 to 999999999"
    parse_value=$((10#$parse_value))
    [[ $parse_value -gt 0 || $parse_default = 0 || ! $parse_name =~ ^(.*_)?nj$|^num_(processes|nodes)$ ]] ||
      bad_call "$parse_option is 0, wanted at least 1"
  elif [[ $parse_default =~ ^0\.[0-9]+$ && ! $parse_value =~ ^(0|1|[0-9.]+e-[0-9]+|0?\.[0-9]+|1\.0*)$ ]]; then
    bad_call "$parse_option is '$parse_value', wanted a share from 0 to 1"
  elif [[ $parse_default =~ ^\+[0-9.]+$ && ! $parse_value =~ ^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$ ]]; then
    bad_call "$parse_option is '$parse_value', wanted a number"
  fi
  # Settings add up: --set a=1 --set b=2.
  [[ $parse_name != set || $parse_named != *" set "* ]] || parse_value="${!parse_name} $parse_value"
  printf -v "$parse_name" %s "$parse_value"
  parse_named+="$parse_name "
done

given() { [[ $parse_named == *" $1 "* ]]; }  # option: whether it was given on the command line

# Gives an option another default. Reports of the call include it.
default_to() {  # option value
  given "$1" || { printf -v "$1" %s "$2"; script_call=("$script" "--${1//_/-}" "$2" "${script_call[@]:1}"); }
}

parse_count=${parse_wanted//[^<]/}; parse_count=${#parse_count}
[ $# -eq "$parse_count" ] || bad_call "wanted $parse_count arguments${parse_wanted:+ ($parse_wanted)}, got $#: $*"
