# Runs beside the private PostgreSQL and ends it when its owner ends in any way: even kill -9 closes the pipe on standard
# input, whose only writing end the owner holds. Plain POSIX sh, for Linux and macOS.
#
# Each line of the pipe replaces the one before:
#   starting         a postgres is about to be started; its process id is not known yet
#   <pid> <name>     that process works on <data_dir>/<name> (postgres on the cluster, initdb on one being made)
#   stopped          nothing is running
data_dir=$1 socket_dir=$2 temporary=$3 owner=$4

# The signals of a terminal or of a service manager's group stop are for the owner; the watcher acts when it has ended.
trap '' HUP INT TERM

# The owner's PATH may have only its own programs.
PATH=${PATH:+$PATH:}/usr/local/bin:/usr/bin:/bin

# Without a sleep program, counting takes a while too.
pause() {
    sleep 0.1 2>/dev/null || sleep 1 2>/dev/null || {
        count=0
        while [ "$count" -lt 20000 ]; do count=$((count + 1)); done
    }
}

# Is process $1 alive and started on directory $2? A reused process id must not get a stranger killed.
serves() {
    if [ -r /proc/self/cmdline ]; then
        arguments=$(tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline") 2>/dev/null || {
            # The text that a shell reads has no zero bytes; an option follows the directory.
            arguments=
            read -r arguments 2>/dev/null <"/proc/$1/cmdline"
            case "$arguments" in *"-D$2-"*) return 0 ;; esac
            return 1
        }
    else
        arguments=$(ps -ww -o args= -p "$1" 2>/dev/null)
        if [ -z "$arguments" ]; then
            # Its command line is unreadable: it is alive, and the directory's pid file names it.
            held=
            read -r held 2>/dev/null <"$2/postmaster.pid"
            [ "$held" = "$1" ] && kill -0 "$1" 2>/dev/null
            return
        fi
    fi
    case "$arguments " in *" -D $2 "*) return 0 ;; esac
    return 1
}

last=stopped
while read -r line; do last=$line; done

pid=${last%% *}
directory=$data_dir/${last#* }
if [ "$last" = starting ]; then
    # Two seconds for PostgreSQL to write its pid file, unless a new owner has taken over meanwhile.
    directory=$data_dir/pg tries=20
    while [ "$tries" -gt 0 ]; do
        holder= pid=
        read -r holder 2>/dev/null <"$data_dir/owner.lock"
        [ "$holder" = "$owner" ] || exit 0
        read -r pid 2>/dev/null <"$directory/postmaster.pid"
        [ -n "$pid" ] && serves "$pid" "$directory" && break
        pause
        tries=$((tries - 1))
    done
fi

if [ "$last" != stopped ]; then
    # Fast shutdown; after ten seconds immediate shutdown (the next start recovers from the log); after thirty the next
    # start has to deal with it.
    ticks=0
    while [ "$ticks" -lt 300 ] && [ -n "$pid" ] && serves "$pid" "$directory"; do
        case $ticks in
        0)
            echo "holdfast: the server that owned PostgreSQL $pid has gone, stopping it" >&2
            kill -INT "$pid"
            ;;
        100) kill -QUIT "$pid" ;;
        esac
        pause
        ticks=$((ticks + 1))
    done
fi

if [ "$temporary" = temporary ]; then
    # A last child of PostgreSQL may still be closing its files.
    tries=10
    while [ "$tries" -gt 0 ] && ! rm -rf -- "$data_dir" "$socket_dir" 2>/dev/null; do
        pause
        tries=$((tries - 1))
    done
fi
