"""What somebody does on purpose (docs/trust.md), by kind: its tests, one for each attempt.

Each shows that the attempt is refused in a line of its cause or changes nothing, runs no code,
takes bounded memory, and leaves what was there.
"""


def _tests(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{file}::test_{name}" for name in names)


ATTACKS = {
    "swaps of weights and tokenizers": (
        "tests/models/test_files_read.py",
        *_tests(
            "tests/models/test_tokenizer_state.py",
            "two_tokenizers_of_the_same_usual_files_are_two",
            "a_loaded_tokenizer_that_is_not_the_files_has_another_hash",
            "a_file_outside_the_folder_is_refused",
            "nothing_is_cached_for_files_that_change_meanwhile",
        ),
        *_tests(
            "tests/models/test_file_hashes.py",
            "a_change_is_seen_though_size_and_modification_time_are_put_back",
            "a_file_that_is_gone_was_changed",
        ),
        *_tests(
            "tests/models/test_weight_copies.py",
            "a_copy_that_was_changed_is_made_again",
            "weights_that_change_while_they_are_converted_make_no_copy",
            "weights_that_changed_meanwhile_are_refused",
        ),
        *_tests(
            "tests/models/test_gguf.py",
            "a_file_that_changes_while_it_is_dequantised_is_not_kept",
            "weights_that_were_changed_are_not_said_to_be_the_files",
        ),
        *_tests(
            "tests/measurement/test_bench.py",
            "a_tokenizer_that_other_versions_read_otherwise_is_found",
        ),
    ),
    "forged bundles": (
        *_tests("tests/evidence/test_contents.py", "a_forgery_is_named"),
        *_tests(
            "tests/evidence/test_bundle.py",
            "a_table_that_was_changed_is_named",
            "a_table_is_held_to_its_own_runs_manifest_too",
            "other_figures_under_consistent_hashes_are_another_verdict",
            "a_record_that_was_changed_is_found",
            "nothing_but_claims_is_run",
            "options_of_a_bundle_are_no_others",
            "code_in_a_bundle_is_never_run",
            "other_weights_under_consistent_hashes",
        ),
        *_tests(
            "tests/evidence/test_rederivation.py",
            "a_command_that_cannot_be_read_is_refused_in_a_line",
            "a_test_id_of_200_kb_is_refused_in_a_line",
            "no_file_of_a_run_leads_out_of_it",
            "no_folder_of_corpora_leads_elsewhere",
        ),
    ),
    "hostile archives": _tests(
        "tests/evidence/test_archive.py",
        "no_name_leads_elsewhere",
        "nothing_but_files",
        "no_name_stands_in_it_twice",
        "encrypted_files_are_refused",
        "other_compressions_are_refused",
        "a_bomb_is_not_unpacked",
        "more_files_than_any_evidence_has",
        "no_more_is_written_than_was_declared",
        "a_changed_file_is_named_with_both_hashes",
        "a_file_of_another_size_is_named",
        "missing_and_unlisted_files_are_named",
        "a_manifest_that_says_something_else",
        "what_is_no_zip",
        "damage_anywhere_is_an_error_or_changes_nothing",
    ),
    "files over a limit, special files": (
        *_tests(
            "tests/test_large_tables.py",
            "in_a_bundle",
            "in_place_of_records",
            "in_a_run_that_a_session_reads_again",
            "in_a_run_that_a_command_reads_again",
        ),
        *_tests(
            "tests/records/test_parquet.py",
            "sixty_million_rows_are_not_read",
            "one_long_text_in_every_row_is_not_copied",
        ),
        *_tests(
            "tests/records/test_packs.py",
            "half_a_gigabyte_is_not_unpacked",
            "what_unpacks_to_more_than_any_page_is_refused",
        ),
        *_tests(
            "tests/models/test_limits.py",
            "a_figure_that_no_model_has_is_refused_at_once",
            "a_figure_within_another_object_is_refused_too",
            "a_config_of_far_more_than_the_weights_is_refused",
            "a_gguf_file_of_20_million_layers_is_refused",
            "a_special_file_is_neither_waited_for_nor_read",
            "a_fifo_called_gguf_is_not_waited_for",
        ),
        *_tests(
            "tests/files/test_contents.py",
            "others_are_refused_at_once",
            "json_has_so_many_values_and_levels",
        ),
        *_tests("tests/cli/test_statuses.py", "a_name_of_5000_letters_is_a_line"),
    ),
    "changed files of runs and readings": (
        *_tests(
            "tests/runs/test_store.py",
            "a_changed_file_is_refused_by_name_and_left_alone",
            "a_manifest_that_lacks_a_file_is_refused",
            "what_was_changed_is_measured_again_where_that_is_asked_for",
            "a_damaged_shard_of_a_partial_run_is_computed_again",
            "a_directory_with_another_config_is_refused",
        ),
        *_tests(
            "tests/runs/test_documents.py",
            "a_changed_file_is_refused_and_left_alone",
            "a_changed_reading_is_computed_again_where_that_is_asked_for",
            "a_reading_whose_manifest_lacks_a_file_is_refused",
            "a_tensor_file_slipped_in_is_refused",
        ),
        *_tests(
            "tests/runs/test_shards.py",
            "a_sidecar_with_a_field_that_cannot_be_used_is_computed_again",
            "a_shard_of_another_size_is_not_trusted",
        ),
        "tests/plugin/test_stored_runs.py",
    ),
    "formulas, commands and hidden signs in exports": (
        *_tests(
            "tests/report/test_export_tables.py",
            "no_text_becomes_a_formula",
            "no_sign_behind_nothing_begins_a_formula",
            "what_nobody_sees_hides_no_formula",
            "no_part_of_a_cell_begins_a_formula_whatever_divides_cells",
            "markdown_shows_exactly_the_text_and_runs_nothing",
            "tex_prints_exactly_the_text",
            "no_cell_is_an_argument_of_the_line_end_before_it",
            "no_export_holds_what_nobody_sees",
            "names_of_files_stay_in_their_folder",
        ),
        *_tests(
            "tests/report/test_page.py",
            "hostile_text_runs_nothing",
            "every_field_is_escaped",
            "no_text_anywhere_turns_the_page_about",
            "direction_controls_are_named_everywhere",
            "run_names_that_leave_the_folder_are_not_linked",
            "panels_are_shown_and_hostile_tokens_run_nothing",
        ),
        *_tests("tests/test_characters.py", "whatever_unicode_calls_a_control_is_named"),
    ),
    "hostile dask schedulers, workers and clients": (
        *_tests(
            "tests/cluster/test_dask_client.py",
            "no_pickle_names_anything_while_a_scheduler_could_have_sent_it",
            "a_scheduler_on_a_network_is_not_spoken_to_without_tls",
            "what_a_changed_worker_returns_runs_nothing",
            "what_comes_beside_a_result_is_left_unread",
            "a_changed_scheduler_can_end_a_session_and_runs_nothing",
        ),
        *_tests("tests/test_cluster_page.py", "one_without_the_key_is_not_let_in"),
    ),
    "forged batch jobs and receipts": (
        *_tests(
            "tests/cluster/test_batch.py",
            "a_job_is_one_line_of_text",
            "receipts_come_to_a_folder_in_which_only_the_user_writes",
            "a_job_is_a_process_that_writes_to_the_sessions_store_only",
            "what_lies_in_a_receipts_place_runs_nothing",
        ),
        *_tests(
            "tests/cluster/test_worker.py",
            "a_worker_writes_where_its_operator_says_and_nowhere_else",
            "a_receipt_says_things_and_does_none",
        ),
        *_tests(
            "tests/cluster/test_dispatch.py",
            "a_result_that_is_no_receipt_ends_the_session_in_one_line",
        ),
        *_tests(
            "tests/cluster/test_serialization.py",
            "a_description_makes_dataclasses_of_the_package_only",
            "other_things_are_refused",
        ),
    ),
    "sessions that are listened to for pickles": _tests(
        "tests/test_no_pickles.py", "a_cold_session_loads_none_wherever_its_jobs_run"
    ),
}
