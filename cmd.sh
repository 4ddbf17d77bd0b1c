# shellcheck shell=bash
# How jobs are launched; --cmd on a recipe's command line overrides it. A launcher takes Kaldi's command line,
#   <launcher> [--mem 4G] [--num-threads 4] [--gpu 1] [--max-jobs-run 10] [--time 24:00:00] JOB=1:n <log> <command ...>
# so Kaldi's own launchers work here too: "run.pl", "queue.pl --config conf/queue.conf", "slurm.pl".
#   run     jobs on this machine, as many at a time as its cores allow
#   sge     Grid Engine; "sge --config /my/sge.conf" for your site, with an edited copy of utils/jobs/sge.conf
#   slurm   Slurm; "slurm --config /my/slurm.conf" for your site, with an edited copy of utils/jobs/slurm.conf
export cmd=run
