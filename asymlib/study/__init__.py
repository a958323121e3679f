"""The experiment: everything behind `make repro`, installed with `asymlib[study]`. It calls the library, never the
other way round."""
