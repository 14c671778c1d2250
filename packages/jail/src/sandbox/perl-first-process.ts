/** Size of /dev/shm, and most terminals at a time. */
const SHM_BYTES = 64 * 1024 * 1024;
const MOST_TERMINALS = 256;

/**
 * What the first process of a sandbox does, a part of the set-up program: it joins the control groups while the root is made, mounts
 * what belongs to its own namespaces, gives up every right, and takes up orphans. In a container, which has a first process
 * already, it ends when it has mounted. `$mounted_r` tells that the root is there, `$ready_w` is told what became of it, and
 * `$go_r` that all which needs it has been opened.
 */
export const PERL_FIRST_PROCESS = String.raw`
die_with_parent();
$0 = 'init';
my $step = sub { my ($ok, $name) = @_; if (!$ok) { syswrite $ready_w, "$name: $!"; quit(1) } };
for my $file (@group_files) { $step->(syswrite($file, '0'), 'control group') }
sysread $mounted_r, my $mounted, 1;
quit(1) if ($mounted || '') ne 'm';
$step->(leave_namespaces($NEWNS | $NEWCGROUP), 'namespaces');
$step->(chdir 'root', 'root');
$step->(mount_at('proc', 'proc', 'proc', 14, ''), '/proc');
$step->(mount_at("proc/$_", "proc/$_", 'none', 0x1000, '') && mount_at('none', "proc/$_", 'none', 0x1000 | 0x20 | 15, ''),
  "/proc/$_") for grep { -e "proc/$_" } qw(sys sysrq-trigger irq bus fs pressure);
$step->(mount_at('decant', 'dev', 'tmpfs', 2, 'size=64k,mode=0755'), '/dev');
for my $device ([null => 1, 3], [zero => 1, 5], [full => 1, 7], [random => 1, 8], [urandom => 1, 9], [tty => 5, 0]) {
  my ($name, $major, $minor) = @$device;
  $step->(make_device("dev/$name", 0666, $major, $minor) && chmod(0666, "dev/$name") && chown($base, $base, "dev/$name"), "/dev/$name");
}
for my $link (['pts/ptmx', 'ptmx'], ['/proc/self/fd', 'fd'], map { ["/proc/self/fd/$_->[1]", $_->[0]] }
  ['stdin', 0], ['stdout', 1], ['stderr', 2]) { $step->(symlink($link->[0], "dev/$link->[1]"), '/dev') }
$step->(mkdir("dev/$_") , '/dev') for qw(pts shm);
$step->(mount_at('devpts', 'dev/pts', 'devpts', 10, 'newinstance,ptmxmode=0666,mode=0620,max=${MOST_TERMINALS}'), '/dev/pts');
$step->(mount_at('shm', 'dev/shm', 'tmpfs', 14, 'size=${SHM_BYTES},mode=1777'), '/dev/shm');
$step->(mount_at('none', 'dev', 'none', 0x20 | 3, ''), '/dev');
$step->(replace_root('.') && chdir('/'), 'root');
syswrite $ready_w, 'ok';
sysread $go_r, my $word, 1;
quit(1) if ($word || '') ne 'g';
# A container has a first process already.
quit(0) if defined $container;
move_fd(fileno($alive_w), 0) or quit(1);
enter_namespace(fileno($user_ns), $NEWUSER) or quit(1);
close_from(1);
bound_capabilities(0);
become(65534, 65534) && keep_capabilities(0) && not_dumpable() && die_with_parent() or quit(1);
confine(unhex($o{seccomp})) or quit(1);
$SIG{CHLD} = 'IGNORE';
select undef, undef, undef, 1e6 while 1;
`;
