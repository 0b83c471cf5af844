//! Real programs: good ones, slow ones, and bad ones.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use dormouse_external::{External, MAX_OUTSTANDING, Occasion, Opinion, Program, Question, SHARE, Verdict};
use tempfile::TempDir;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn question(frame: &[u8]) -> Question {
    Question { machine: "web".parse().unwrap(), frame: frame.to_vec(), summary: "a frame".into() }
}

fn program(path: &Path, timeout: Duration) -> Program {
    Program {
        name: "test".into(),
        program: path.to_path_buf(),
        args: vec!["first".into(), "second word".into()],
        user: None,
        timeout,
    }
}

/// A directory with a script in it that everybody may run.
fn script(text: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = dir.path().join("responder");
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

/// A Python program that does `body` for each `q`.
fn python(body: &str) -> (TempDir, PathBuf) {
    let body = body.replace('\n', "\n    ");
    script(&format!(
        "#!/usr/bin/python3\nimport json, os, sys, time\ndef say(**a): print(json.dumps(a), flush=True)\n\
         for line in sys.stdin:\n    q = json.loads(line)\n    {body}\n"
    ))
}

/// `None`: it says nothing.
async fn ask(external: &External, frame: &[u8]) -> Option<Verdict> {
    external.ask(question(frame)).unwrap().await.ok()
}

/// Asks until there is an answer: a program that ended is started again only
/// after a pause.
async fn ask_until_answered(external: &External, frame: &[u8]) -> Option<Verdict> {
    let start = Instant::now();
    loop {
        let verdict = ask(external, frame).await;
        if verdict.is_some() || start.elapsed() > LONG {
            return verdict;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Is the process gone, or at least dead?
async fn ended(pid: u32) -> bool {
    let start = Instant::now();
    while start.elapsed() < LONG {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if status.is_empty() || status.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

#[tokio::test]
async fn each_verdict_comes_back() {
    let (_dir, path) = python(
        "v = ['reply', 'wake', 'ignore', 'hold'][bytes.fromhex(q['frame'])[0]]\n\
         assert q['version'] == 1 and q['machine'] == 'web' and q['summary'] == 'a frame'\n\
         say(id=q['id'], verdict=v, frames=[q['frame'], q['frame'][::-1]] if v == 'reply' else [])",
    );
    let external = External::new(program(&path, LONG));
    let frame = [&[0u8][..], &[0x12; 60]].concat();
    let mut reversed = vec![0x21; 60];
    reversed.push(0);
    assert_eq!(ask(&external, &frame).await, Some(Verdict::Reply(vec![frame, reversed])));
    assert_eq!(ask(&external, &[1]).await, Some(Verdict::Wake));
    assert_eq!(ask(&external, &[2]).await, Some(Verdict::Ignore));
    assert_eq!(ask(&external, &[3]).await, Some(Verdict::Hold));
}

#[tokio::test]
async fn answers_may_come_in_any_order() {
    let (_dir, path) = python(
        "w = globals().setdefault('w', [])\nw.append(q)\n\
         if len(w) == 3:\n    for q in reversed(w): say(id=q['id'], verdict=['wake', 'ignore', 'wake'][q['id']])",
    );
    let external = External::new(program(&path, LONG));
    let waiting: Vec<_> = (0..3).map(|n| external.ask(question(&[n])).unwrap()).collect();
    let mut verdicts = Vec::new();
    for verdict in waiting {
        verdicts.push(verdict.await.unwrap());
    }
    assert_eq!(verdicts, [Verdict::Wake, Verdict::Ignore, Verdict::Wake]);
}

#[tokio::test]
async fn it_has_nothing_of_the_daemon() {
    let (dir, path) = python(
        "fds = [f for f in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + f)]\n\
         r = dict(fds=fds, env=sorted(os.environ), cwd=os.getcwd(), args=sys.argv[1:], ids=[os.getresuid(), os.getresgid(), os.getgroups()], sid=os.getsid(0) == os.getpid())\n\
         say(id=q['id'], verdict='reply', frames=[json.dumps(r).encode().hex()])",
    );
    let mut program = program(&path, LONG);
    program.user = Some("nobody".into());
    let Some(Verdict::Reply(frames)) = ask(&External::new(program), b"?").await else { panic!("no reply") };
    let told: serde_json::Value = serde_json::from_slice(&frames[0]).unwrap();
    let id = |file: &str, at: usize| -> u64 {
        let text = fs::read_to_string(file).unwrap();
        let line = text.lines().find(|line| line.starts_with("nobody:")).unwrap().to_owned();
        line.split(':').nth(at).unwrap().parse().unwrap()
    };
    let (uid, gid) = (id("/etc/passwd", 2), id("/etc/passwd", 3));
    assert_eq!(told["ids"], serde_json::json!([[uid, uid, uid], [gid, gid, gid], []]));
    assert_eq!(told["fds"], serde_json::json!(["0", "1", "2"]));
    // Python itself sets LC_CTYPE where there is no locale.
    assert_eq!(told["env"].as_array().unwrap().iter().filter(|key| *key != "LC_CTYPE").count(), 2, "{told}");
    assert_eq!((&told["cwd"], &told["sid"]), (&"/".into(), &true.into()));
    assert_eq!(told["args"], serde_json::json!(["first", "second word"]));
    drop(dir);
}

#[tokio::test]
async fn a_slow_one_says_nothing_of_one_frame_and_answers_others() {
    let (_dir, path) = python("if q['frame'] != '00': say(id=q['id'], verdict='wake')");
    let external = External::new(program(&path, Duration::from_millis(500)));
    assert_eq!(ask_until_answered(&external, &[1]).await, Some(Verdict::Wake));
    assert_eq!(ask(&external, &[0]).await, None);
    assert_eq!(ask_until_answered(&external, &[1]).await, Some(Verdict::Wake));
}

#[tokio::test]
async fn a_late_answer_is_not_taken_for_another() {
    let (_dir, path) = python(
        "p = globals().get('p')\nif p: say(id=p, verdict='ignore')\np = globals()['p'] = q['id'] + 1 - 1\n\
         if q['frame'] == '01': say(id=q['id'], verdict='wake')",
    );
    let external = External::new(program(&path, Duration::from_secs(2)));
    assert_eq!(ask_until_answered(&external, &[1]).await, Some(Verdict::Wake));
    assert_eq!(ask(&external, &[0]).await, None);
    assert_eq!(ask(&external, &[1]).await, Some(Verdict::Wake));
}

#[tokio::test]
async fn one_that_never_reads_or_answers_costs_nothing_but_its_frames() {
    let (_dir, path) = script("#!/bin/sh\nexec sleep 1000\n");
    let external = External::new(program(&path, Duration::from_millis(200)));
    let frame = vec![0xff; 60_000];
    for _ in 0..2 {
        let about = |machine: &str| Question { machine: machine.parse().unwrap(), ..question(&frame) };
        let mut waiting = Vec::new();
        // Each machine has its share, and all together no more than there is room.
        for number in 0..MAX_OUTSTANDING / SHARE + 2 {
            let machine = format!("guest{number}");
            let before = waiting.len();
            waiting.extend(std::iter::from_fn(|| external.ask(about(&machine))).take(1000));
            assert_eq!(waiting.len() - before, if before < MAX_OUTSTANDING { SHARE } else { 0 });
        }
        for verdict in waiting {
            verdict.await.unwrap_err();
        }
    }
}

#[tokio::test]
async fn one_that_crashes_is_started_again_after_a_pause() {
    let (_dir, path) = python("if q['frame'] == '00': os._exit(3)\nsay(id=q['id'], verdict='wake')");
    let external = External::new(program(&path, LONG));
    assert_eq!(ask(&external, &[1]).await, Some(Verdict::Wake));
    assert_eq!(ask(&external, &[0]).await, None, "it crashed");
    assert_eq!(ask(&external, &[1]).await, None, "not at once");
    assert_eq!(ask_until_answered(&external, &[1]).await, Some(Verdict::Wake));
}

#[tokio::test]
async fn one_that_cannot_be_started_says_nothing() {
    let external = External::new(program(Path::new("/nonexistent"), LONG));
    assert_eq!(ask(&external, &[1]).await, None);
    let mut nobody = program(Path::new("/bin/cat"), LONG);
    nobody.user = Some("no such user".into());
    assert_eq!(ask(&External::new(nobody), &[1]).await, None);
}

#[tokio::test]
async fn garbage_is_ignored() {
    let (_dir, path) = python(
        "print('garbage'); print('{}'); print('\\x00\\xff' * 100); print('x' * 3_000_000)\n\
         say(id=99, verdict='ignore'); say(id=q['id'], verdict='reply', frames=['zz'])\n\
         sys.stderr.write('\\x1b[2J' + 'y' * 100_000 + '\\n')\nsay(id=q['id'], verdict='wake')",
    );
    let external = External::new(program(&path, LONG));
    assert_eq!(ask(&external, &[1]).await, Some(Verdict::Wake));
    assert_eq!(ask(&external, &[1]).await, Some(Verdict::Wake));
}

#[tokio::test]
async fn a_flood_ends_the_program() {
    let (dir, path) =
        python("open(sys.argv[0] + '.pid', 'w').write(str(os.getpid()))\nwhile True: print('flood')");
    let external = External::new(program(&path, LONG));
    assert_eq!(ask(&external, &[1]).await, None);
    let pid = fs::read_to_string(dir.path().join("responder.pid")).unwrap().parse().unwrap();
    assert!(ended(pid).await);
}

#[tokio::test]
async fn it_ends_with_the_last_handle_and_all_it_started() {
    let (_dir, path) = script(
        "#!/bin/sh\nsleep 1000 &\nread line\n\
         printf '{\"id\":0,\"verdict\":\"reply\",\"frames\":[\"%014x%014x\"]}\\n' $$ $!\nwait\n",
    );
    let external = External::new(program(&path, LONG));
    let other = external.clone();
    let Some(Verdict::Reply(frames)) = ask(&external, &[1]).await else { panic!("no reply") };
    let pid = |octets: &[u8]| u32::from_be_bytes(*octets.last_chunk().unwrap());
    let pids = [pid(&frames[0][..7]), pid(&frames[0][7..])];
    drop(external);
    assert!(pids.iter().all(|pid| Path::new(&format!("/proc/{pid}")).exists()));
    drop(other);
    for pid in pids {
        assert!(ended(pid).await, "{pid}");
    }
}

#[tokio::test]
async fn the_example_answers_udp_echo() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/responders/udp-echo.py");
    let external = External::new(program(&example.canonicalize().unwrap(), LONG));
    // 10.9.0.1:5000 to 10.9.0.2:7, "hello", without a checksum of UDP.
    let ask_for = hex::decode(
        "525400000002525400000001\
         080045000021000040004011268d0a0900010a090002\
         13880007000d000068656c6c6f",
    )
    .unwrap();
    let Some(Verdict::Reply(frames)) = ask(&external, &ask_for).await else { panic!("no reply") };
    let [frame] = &frames[..] else { panic!("{frames:x?}") };
    assert_eq!(hex::encode(&frame[..24]), "525400000001525400000002080045000021000040004011");
    assert_eq!(hex::encode(&frame[26..40]), "0a0900020a09000100071388000d");
    assert_eq!(&frame[42..], b"hello");
    // RFC 1071: what has a right checksum sums to ones.
    assert_eq!(sum(&frame[14..34]), 0xffff);
    let pseudo = [&frame[26..34], &[0, 17, 0, 13], &frame[34..], &[0]].concat();
    assert_eq!(sum(&pseudo), 0xffff);
    for other in [&ask_for[..41], &[0; 60]] {
        assert_eq!(ask(&external, other).await, Some(Verdict::Hold));
    }
}

/// A sample of a machine that has been idle for so long; `None`: it is in use.
fn occasion(idle_for: Option<f64>) -> Occasion {
    let cpu = serde_json::json!({"name": "cpu", "busy": idle_for.is_none()});
    // A Sunday, wherever one is.
    let facts =
        [("now", 1_795_334_400.0.into()), ("idle_for", idle_for.into()), ("signals", vec![cpu].into())];
    let facts =
        facts.into_iter().map(|(name, fact): (_, serde_json::Value)| (name.to_owned(), fact)).collect();
    Occasion { machine: "web".parse().unwrap(), facts }
}

#[tokio::test]
async fn the_example_of_a_policy_heeds_office_hours() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/policies/office.py");
    for (days, enough) in [("1-7", "1800"), ("1-5", "60")] {
        let args = ["--days", days, "--hours", "0-24"].map(str::to_owned).to_vec();
        let program = Program { args, ..program(&example.canonicalize().unwrap(), LONG) };
        let external = External::new(program);
        for (idle, sleep, why) in [
            (None, false, "in use: cpu".to_owned()),
            (Some(59.0), false, format!("idle for 59 s of {enough} s")),
            (Some(1800.0), true, "idle for 1800 s".into()),
        ] {
            let opinion = external.ask_policy(occasion(idle)).unwrap().await.unwrap();
            assert_eq!(opinion, Opinion { sleep, why });
        }
    }
}

#[tokio::test]
async fn a_policy_that_says_nonsense_says_nothing() {
    let (_dir, path) = python(
        "v = ['wake', 7, None, 'keep'][q['id']]\nsay(id=q['id'], verdict=v, why='x' * 1000)\n\
         if q['id'] == 2: print('sleep', flush=True)",
    );
    let external = External::new(program(&path, Duration::from_secs(2)));
    for _ in 0..3 {
        external.ask_policy(occasion(None)).unwrap().await.unwrap_err();
    }
    let opinion = external.ask_policy(occasion(None)).unwrap().await.unwrap();
    assert_eq!((opinion.sleep, opinion.why.len()), (false, 200));
}

fn sum(octets: &[u8]) -> u32 {
    let words = octets.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum: u32 = words.sum();
    (sum & 0xffff) + (sum >> 16)
}
