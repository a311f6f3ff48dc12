"""The written release process, a task a section. A section declares options; each step gets those it names."""

from importlib import import_module
from importlib.util import find_spec

from invoke import Collection

import release_tasks as layer
from release_tasks import sections
from release_tasks.engine import command, next_step, section, steps


@section()
def preconditions(release, sign=False):
    """2. Preconditions"""
    return steps(
        sections.preconditions.check_environments_differ,
        sections.preconditions.check_branch,
        sections.preconditions.check_tree_is_clean,
        sections.preconditions.check_branch_is_up_to_date,
        sections.preconditions.check_everything_is_merged,
        sections.preconditions.check_tag_is_free,
        sections.preconditions.check_version_order,
        sections.preconditions.check_version_files,
        sections.preconditions.check_ddl_pack,
        sections.preconditions.check_commands_exist,
        sections.preconditions.try_install,
        sections.tag.try_signing,
        sections.archive.check_evidence_setup,
        sections.preconditions.try_browser,
        sections.preconditions.prove_the_ddl_pack,
        sections.preconditions.validate_the_ddl_pack_on_dev,
        sections.preconditions.run_smokes_on_dev,
        sections.preconditions.check_conditions_have_tests,
    )


@section(preconditions)
def freeze(release, take_over=None, until=None, allow_shift=None):
    """3. Freeze Window"""
    return steps(
        sections.freeze.hold_the_release_lock,
        sections.freeze.announce_the_freeze,
        sections.freeze.cut_the_release_branch,
        sections.freeze.lock_the_ddl_order,
    )


@section(freeze)
def docs_pack(release):
    """4. Build the Docs Pack"""
    return steps(sections.docs_pack.write_the_docs_pack, sections.docs_pack.publish_the_docs_submodule)


@section(docs_pack)
def tag(release, sign=False):
    """5. Tag the Release"""
    return steps(sections.tag.tag_the_release, sections.tag.push_branch_and_tag)


@section(tag)
def notes(release, highlights=None):
    """6. Prepare Release Notes"""
    return steps(sections.notes.write_the_notes, sections.notes.push_the_notes)


@section(notes)
def staging(release):
    """7. Deploy to Staging"""
    return steps(
        sections.deployment.check_environment,
        sections.deployment.put_the_code_in_place,
        sections.deployment.apply_the_ddl_pack,
        sections.deployment.run_the_release,
        sections.deployment.run_smokes,
        sections.deployment.stamp_the_session,
        sections.deployment.run_acceptance_tests,
        env="staging",
    )


@section(staging)
def production(release, yes=False):
    """8. Deploy to Production"""
    return steps(
        sections.deployment.check_environment,
        sections.production.confirm_production,
        sections.production.back_up_the_database,
        sections.production.verify_the_backup,
        sections.deployment.put_the_code_in_place,
        sections.deployment.apply_the_ddl_pack,
        sections.deployment.stamp_the_session,
        sections.production.run_checks_before_the_flip,
        sections.deployment.run_the_release,
        env="production",
    )


@section(production)
def archive(release):
    """9. Archive and Register Evidence Pack"""
    return steps(
        sections.archive.build_the_evidence_pack,
        sections.archive.timestamp_the_pack,
        sections.archive.write_the_archive_files,
        sections.archive.copy_the_archive_files,
        sections.archive.ask_to_keep_the_hashes_and_file,
    )


@section(archive)
def post_release(release, next=None):
    """10. Post-Release"""
    return steps(
        sections.post_release.merge_the_release_branch_back,
        sections.post_release.open_the_next_cycle,
        sections.post_release.push_the_main_branch,
    )


@section()
def withdraw(release, take_over=None, reason=None):
    """Withdraw a release that will not be finished: its tag stays, the notes on main say why."""
    return steps(sections.freeze.hold_the_release_lock, sections.withdrawal.record_the_withdrawal)


@section(post_release)
def release(release):
    """Take a release through sections 2 to 10; after any stop, the same command goes on."""
    return steps()


@section(post_release, only_checks=True)
def status(release, json=False):
    """Check only: each step done, planned, pending, manual or refused."""
    return steps()


@command("rollback")
def deploy_rollback(c, env="production", to=None, yes=False):
    """Roll back to an earlier release: code only, no DDL."""
    layer.rollback.roll_back(c.config, env, to, yes)


@command("running")
def deploy_running(c, json=False):
    """Show what runs in each environment, since when, by whom, and the next step of a release under way."""
    layer.running.report(c.config, json, lambda version: next_step(post_release, c.config, version))


@command("history")
def deploy_history(c, env="production", json=False):
    """Show what happened to an environment: each switch of each host, and the stamps."""
    layer.running.history(c.config, env, json)


@command(dry=False)
def smokes(c, env="dev", only=None, json=False):
    """Run the smokes in an environment; options after `--` go to pytest."""
    layer.suites.report_smokes(c.config, env, only, json)


@command(dry=False, version="the version expected there")
def accept(c, env="staging", version=None, watch=None, json=False):
    """Check section 7.2 in an environment; options after `--` go to pytest."""
    layer.suites.report_conditions(c.config, env, version, watch, json)


@command(dry=False, version="the version to rehearse")
def rehearse(c, version=None, keep=False):
    """Release in a throw-away clone: bare remote, embedded dev, staging and production."""
    layer.rehearsal.rehearse(c.config, version, keep)


@command("validate")
def ddl_validate(c, json=False):
    """Prove the DDL pack on a scratch server."""
    layer.ddl.validate(c.config, json)


@command("apply", yes="also to production")
def ddl_apply(c, env="dev", again=False, yes=False):
    """Apply the DDL pack in an environment."""
    layer.ddl.report_apply(c.config, env, again, yes)


@command("drift")
def ddl_drift(c, env="dev", json=False):
    """Compare a database with what the DDL pack makes."""
    layer.ddl.report_drift(c.config, env, json)


@command("take", dry=False)
def backup_take(c, env="production"):
    """Back up a database, and verify the backup by a test restore."""
    layer.backup_tasks.take(c.config, env)


@command("restore")
def backup_restore(c, from_=None, into=None, over=None):
    """Restore a backup into a database."""
    layer.backup_tasks.restore_backup(c.config, from_, into, over)


@command("verify")
def evidence_verify(c, pack, allowed_signers=None, tsa_ca=None, at=None, unsigned=False, json=False):
    """Verify an evidence pack alone: a folder or a .tar; or an index."""
    layer.evidence_tasks.verify_pack(c.config, pack, allowed_signers, tsa_ca, at, unsigned, json)


@command("stamps", dry=False, version=layer.command_line.IN_WORK)
def evidence_stamps(c, version=None):
    """Add the sessions of staging and production to a pack."""
    layer.evidence_tasks.add_stamps(c.config, version)


@command("index", dry=False)
@layer.command_line.words_after("evidence.index")
def evidence_index(c, *repos):
    """Add the packs of repos, as `../a ../b`, to index.jsonl."""
    layer.evidence_tasks.add_to_index(c.config, repos)


@command(dry=False, version=layer.command_line.IN_WORK)
def report(c, version=None):
    """Write the report of a release: one page for a browser, a phone, or paper."""
    layer.evidence_tasks.write_report(c.config, version)


@command(dry=False, version=layer.command_line.IN_WORK)
def filing(c, office="inpi-br", version=None):
    """Prepare the filing of a release: the deposit, the form, a checklist."""
    layer.evidence_tasks.prepare_filing(c.config, office, version)


@command("schema", dry=False)
def settings_schema(c, file=None):
    """Write the JSON Schema of invoke.yaml, for editors."""
    layer.config.write_schema(file)


TOP_LEVEL = (preconditions, freeze, docs_pack, tag, notes, archive, post_release)  # sections 7 and 8: inv deploy.…
ns = Collection(*TOP_LEVEL, release, status, withdraw, smokes, accept, rehearse, report, filing)
ns.add_collection(Collection("deploy", staging, production, deploy_rollback, deploy_running, deploy_history))
ns.add_collection(Collection("ddl", ddl_validate, ddl_apply, ddl_drift))
ns.add_collection(Collection("backup", backup_take, backup_restore))
ns.add_collection(Collection("evidence", evidence_verify, evidence_stamps, evidence_index))
ns.add_collection(Collection("settings", settings_schema))
if find_spec("tasks_local"):  # a repo's own tasks
    ns.add_collection(Collection.from_module(import_module("tasks_local")), name="local")
