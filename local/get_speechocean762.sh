#!/usr/bin/env bash
# Download speechocean762 (OpenSLR 101, about 0.5 GB, free for commercial and other use) and unpack it into
# speechocean762/ in the folder. An interrupted download resumes; a damaged archive is downloaded again from the next
# address.
# e.g.: local/get_speechocean762.sh /corpora
url=                # address of the archive (.tar.gz) to try before the known ones
# <folder>
. "$(dirname "$0")/../utils/step.sh"
folder=$1 name=speechocean762

[ -z "${VOX_STATUS:-}" ] || { require_file "$folder/$name"; exit 0; }
[ ! -d "$folder/$name" ] || exit 0
urls=(${url:+"$url"})
for host in www.openslr.org us.openslr.org openslr.elda.org openslr.magicdatatech.com; do
  urls+=("https://$host/resources/101/$name.tar.gz")
done
step_begins
python3 -m utils.download --out "$folder/$name.tar.gz" --unpack "$folder/$name" "${urls[@]}"
log "$folder/$name: downloaded and unpacked"
